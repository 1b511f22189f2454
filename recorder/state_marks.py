"""Recurrent layers that read one moment, and begin it with a state of zeros, or always with the same one."""

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
    return _of_state(read, state, args[2], trace)


def mark_of_cell(made: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], trace: Trace) -> str:
    """The same of a cell, which is given one moment anyway."""
    if len(args) < 3 or not isinstance(args[0], torch.Tensor):
        return ""
    return _of_state(args[0], args[1], args[2], trace)


def _of_state(read: torch.Tensor, state: Any, weights: Any, trace: Trace) -> str:
    states = state if isinstance(state, (tuple, list)) else (state,)
    known = tuple(trace.known(one) for one in states if isinstance(one, torch.Tensor))
    if not known or any(node is None for node in known):
        return ""
    is_zero = all(node is not None and trace.operations[node] == "zeros" for node in known)
    if not is_zero and not _is_held(known, weights, trace):
        return ""
    is_slice = _is_part(read) or _is_slice(trace, trace.known(read))
    return f"{'anew' if is_zero else 'held'}: {'slice' if is_slice else 'whole'}"


def _is_held(known: tuple[int | None, ...], weights: Any, trace: Trace) -> bool:
    """Whether these weights have begun every call of the step so far from the very same states, and not for once."""
    weight = id(weights[0] if isinstance(weights, (tuple, list)) else weights)
    if weight not in trace.cell_states:
        trace.cell_states[weight] = known
        return False
    if trace.cell_states[weight] != known:
        trace.cell_states[weight] = ()
    return bool(trace.cell_states[weight])


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
