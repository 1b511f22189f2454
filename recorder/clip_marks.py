"""Clamps of what a net gives: where it lies beyond the limits, no gradient comes back."""

from __future__ import annotations

import math
from typing import Any

import torch

from stepscope.recorder.trace import Trace

_MOVES = frozenset(["", "view", "reshape", "flatten", "squeeze", "unsqueeze", "contiguous", "to", "float", "clone"])
"""What keeps all numbers as they are."""


def mark_of_clip(made: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], trace: Trace) -> str:
    """A clamp between two numbers, or on one side, of a tensor that has a name: ``clip: 1e-07, 1``.

    Of one without a name, an expression of a loss say, its upper limit: ``cap: 40``.
    """
    if not made.requires_grad or not isinstance(args[0], torch.Tensor):
        return ""
    low, high = (
        kwargs.get(name, args[place] if len(args) > place else None) for place, name in ((1, "min"), (2, "max"))
    )
    if isinstance(low, torch.Tensor) or isinstance(high, torch.Tensor):
        return ""
    if not _has_name(args[0], trace):
        return "" if high is None else f"cap: {high:.9g}"
    return f"clip: {-math.inf if low is None else low:.9g}, {math.inf if high is None else high:.9g}"


def _has_name(tensor: torch.Tensor, trace: Trace) -> bool:
    """Whether a tensor is a named one, perhaps in another shape."""
    node = trace.known(tensor)
    while node is not None and node not in trace.named:
        parents = trace.parents[node]
        node = parents[0] if len(parents) == 1 and trace.operations[node] in _MOVES else None
    return node is not None
