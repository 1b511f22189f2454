"""Sums to one, and joined dimensions, that belong to another dimension than the one meant; seen while calls run."""

from __future__ import annotations

from typing import Any

import torch

from stepscope.recorder.masked_scores import is_masked
from stepscope.recorder.trace import Trace
from stepscope.recorder.weighing_marks import follow_reshape, forgive

_SUMS = frozenset(["sum", "norm", "vector_norm", "linalg_vector_norm", "linalg_norm"])


def note_softmax(made: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], trace: Trace) -> str:
    """A softmax, or a unit norm, over the first dimension of a table: in a square that may be meant."""
    dimension = kwargs.get("dim", args[1] if len(args) > 1 else None)
    if not isinstance(dimension, int):
        return ""
    forgive(trace, args[0])
    trace.summed[trace.node(made)] = dimension if dimension < 0 else dimension - made.dim()
    if dimension in (0, -made.dim()) and _is_table(made.shape):
        return "over samples"
    return "times mask" if is_masked(trace, args[0]) else ""


def note_division(made: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], trace: Trace) -> str:
    """The same by hand: what is divided by its sum, or norm, over the first dimension."""
    if len(args) < 2 or not all(isinstance(arg, torch.Tensor) for arg in args[:2]) or not _is_table(made.shape):
        return ""
    over, by = args[0].shape, args[1].shape
    node = trace.known(args[1])
    is_sum = node is not None and trace.operations[node] in _SUMS
    return "over samples" if is_sum and over == made.shape and by in (over[1:], (1, *over[1:])) else ""


def note_join(made: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], trace: Trace) -> str:
    """Remember which two dimensions a reshape joined in front; odd only if a loss's other side joined them reversed."""
    follow_reshape(made, args[0], trace)
    before, after = args[0].shape, made.shape
    if len(before) > 1 and len(after) and after[0] == before[0] * before[1] and after[1:] == before[2:]:
        trace.joined[trace.node(made)] = (before[0], before[1])
    return ""


def _is_table(shape: torch.Size) -> bool:
    return len(shape) > 1 and shape[0] > 1 and shape[0] != shape[1] and max(shape[1:]) > 1
