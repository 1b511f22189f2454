"""Single numbers that a loss is made of: what they are multiplied with, and whether a gradient passes them."""

from __future__ import annotations

from typing import Any

import torch

from stepscope.recorder.loss_walk import FACTOR, NO_GRADIENT
from stepscope.recorder.trace import Trace

_SUMS = frozenset(["add", "radd", "iadd", "sub", "rsub"])
_PRODUCTS = frozenset(["mul", "rmul", "imul"])


def mark_of_term(name: str, made: torch.Tensor, args: tuple[Any, ...], trace: Trace) -> str:
    """The number that something is multiplied with; a term that is added without a gradient is marked itself."""
    if name in _PRODUCTS:
        factor = next((number for arg in args[:2] if (number := _number(arg, trace)) is not None), None)
        return "" if factor is None else f"{FACTOR}{factor!r}"
    if made.requires_grad and made.dim() == 0 and name in _SUMS:
        for arg in args[:2]:
            node = trace.known(arg) if isinstance(arg, torch.Tensor) and not arg.requires_grad else None
            if node is not None and trace.rooted[node] and trace.parents[node]:
                trace.marks.setdefault(node, NO_GRADIENT)
    return ""


def _number(arg: Any, trace: Trace) -> float | None:
    """A number of Python's, or one in a tensor that can be read without waiting."""
    if isinstance(arg, (int, float)):
        return float(arg)
    if arg.__class__ is not torch.Tensor or arg.requires_grad or arg.dim() or arg.device.type != "cpu":
        return None
    if not trace.is_data(arg):
        return None
    try:
        with torch._C.DisableTorchFunction():
            return float(arg)
    except (RuntimeError, TypeError):  # complex, or one of many within vmap
        return None
