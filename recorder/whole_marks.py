"""Numbers that were made of a whole batch, and then meet its samples one by one."""

from __future__ import annotations

from typing import Any

import torch

from stepscope.recorder.trace import Trace

_FAR = 8


def note_whole(made: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], trace: Trace) -> str:
    """Remember a reduction of a table to one number: ``max()`` without a dimension."""
    table = args[0]
    if made.dim() == 0 and isinstance(table, torch.Tensor) and table.dim() > 1 and table.shape[0] > 1:
        node = trace.node(made)
        if trace.rooted[node]:
            trace.wholes[node] = node
    return ""


def note_meeting(name: str, made: torch.Tensor, args: tuple[Any, ...], trace: Trace) -> None:
    """Follow such a number through products, to where it is added to what each sample has of its own.

    What is added must not come from the same table: a mean that is taken off its own samples is right.
    """
    if not trace.wholes:
        return
    nodes = [trace.known(arg) for arg in args[:2] if isinstance(arg, torch.Tensor)]
    whole = next((trace.wholes[node] for node in nodes if node in trace.wholes), None)
    if whole is None:
        return
    others = [node for node in nodes if node not in trace.wholes]
    if any(_comes_from(trace, other, trace.parents[whole]) for other in others):
        return
    trace.wholes[trace.node(made)] = whole
    if made.dim() and made.shape[0] > 1 and name in ("add", "radd", "iadd") and others:
        trace.marks[whole] = "whole batch"


def _comes_from(trace: Trace, node: int | None, tables: tuple[int, ...]) -> bool:
    """Whether a tensor was computed from one of these, a few calls before."""
    waiting = [] if node is None else [node]
    for _ in range(_FAR):
        if any(known in tables for known in waiting):
            return True
        waiting = [parent for known in waiting for parent in trace.parents[known]][:_FAR]
    return False
