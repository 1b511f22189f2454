"""Recurrent layers that read one moment, and begin it with a state of zeros."""

from __future__ import annotations

from typing import Any

import torch

from stepscope.recorder.trace import Trace

_CUTS = frozenset(["select", "narrow", "unbind", "chunk", "split", "iter"])
_KEEPS = frozenset(["unsqueeze", "squeeze", "view", "reshape", "contiguous", "dropout", "flatten"])
_FAR = 4


def mark_of_beginning(args: tuple[Any, ...], trace: Trace) -> str:
    """Of a layer: whether it is given one moment, and nothing of what it has read before."""
    read, state, *_, batch_first = args
    if read.dim() != 3 or read.shape[1 if batch_first is True else 0] != 1:
        return ""
    return _of_state(read, state, trace)


def mark_of_cell(made: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], trace: Trace) -> str:
    """The same of a cell, which is given one moment anyway."""
    return _of_state(args[0], args[1], trace) if len(args) > 1 and isinstance(args[0], torch.Tensor) else ""


def _of_state(read: torch.Tensor, state: Any, trace: Trace) -> str:
    states = state if isinstance(state, (tuple, list)) else (state,)
    known = [trace.known(one) for one in states if isinstance(one, torch.Tensor)]
    if not known or any(node is None or trace.operations[node] != "zeros" for node in known):
        return ""
    is_slice = _is_part(read) or _is_slice(trace, trace.known(read))
    return f"anew: {'slice' if is_slice else 'whole'}"


def _is_part(tensor: torch.Tensor) -> bool:
    """Whether a tensor is a view of a part of another one; ``x[:, None]`` is one of all of it."""
    base = tensor._base
    return base is not None and base.numel() > tensor.numel()


def _is_slice(trace: Trace, node: int | None) -> bool:
    """Whether what is read was cut out of something longer."""
    for _ in range(_FAR):
        if node is None or trace.operations[node] in _CUTS or not trace.parents[node]:
            break
        node = trace.parents[node][0] if trace.operations[node] in _KEEPS else None
    return node is not None and trace.operations[node] in _CUTS
