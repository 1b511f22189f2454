"""Scores that are multiplied with a mask before a softmax: what was to be hidden gets the weight of a score of zero."""

from __future__ import annotations

from typing import Any

import torch

from stepscope.recorder.trace import Trace

_KEEPS = frozenset(
    ["mul", "rmul", "imul", "div", "truediv", "dropout", "to", "float", "view", "reshape", "squeeze", "unsqueeze",
     "transpose", "permute", "contiguous", "getitem", "flatten"]
)  # fmt: skip
"""What leaves zeros where they are."""
_LARGEST = 1 << 16
"""Elements of a mask of floating numbers beyond which it is not looked at."""
_FAR = 4


def note_mask(made: torch.Tensor, args: tuple[Any, ...], trace: Trace) -> None:
    """Remember a product of something computed with a mask: zeros and ones that were not."""
    if made.dim() < 2 or len(args) < 2 or not all(isinstance(arg, torch.Tensor) for arg in args[:2]):
        return
    for scores, mask in (args[:2], args[1::-1]):
        if scores.requires_grad and not mask.requires_grad and mask.dim() and _is_mask(mask):
            trace.masked.add(trace.node(made))


def is_masked(trace: Trace, tensor: torch.Tensor) -> bool:
    """Whether the argument of a softmax was multiplied with a mask, and nothing was added since."""
    node = trace.known(tensor) if trace.masked else None
    for _ in range(_FAR):
        if node is None or node in trace.masked:
            break
        parents = trace.parents[node]
        node = parents[0] if parents and trace.operations[node] in _KEEPS else None
    return node is not None


def _is_mask(mask: torch.Tensor) -> bool:
    if mask.dtype == torch.bool:
        return True
    if mask.__class__ is not torch.Tensor or not 1 < mask.numel() <= _LARGEST or mask.device.type != "cpu":
        return False
    try:
        with torch._C.DisableTorchFunction():
            return bool(((mask == 0) | (mask == 1)).all())
    except RuntimeError:  # one of many within vmap
        return False
