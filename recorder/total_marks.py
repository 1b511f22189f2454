"""Sums over a whole batch that go through a logarithm's bend, where the logarithms of its samples were to be summed."""

from __future__ import annotations

from typing import Any

import torch

from stepscope.recorder.trace import Trace

LOG_OF_SUM = "log of sum"
_KEEPS = frozenset(["neg", "mul", "rmul", "div", "truediv", "add", "radd", "sub", "rsub"])
"""What may lie between a sum and the bend, or between the sums of rows and that of the batch."""
_FAR = 4


def note_total(made: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], trace: Trace) -> None:
    """Remember the sums of a table's rows, and the sum over a table, or over such rows, to one number."""
    table = args[0]
    if not made.requires_grad or not isinstance(table, torch.Tensor) or not table.dim() or table.shape[0] < 2:
        return
    is_row = made.dim() == 1 and table.dim() == 2 and made.shape[0] == table.shape[0]
    is_total = made.dim() == 0 and (table.dim() > 1 or _is_from(trace, trace.known(table), trace.row_sums))
    if is_row:
        trace.row_sums.add(trace.node(made))
    elif is_total:
        trace.totals.add(trace.node(made))


def mark_of_bend(made: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], trace: Trace) -> str:
    """Whether ``logsigmoid``, ``softplus`` or ``log(sigmoid())`` of one number is that of a sum over a batch."""
    if made.dim() or not made.requires_grad or not trace.totals or not isinstance(args[0], torch.Tensor):
        return ""
    node = trace.known(args[0])
    if trace.operations[trace.node(made)] == "log":
        is_chance = node is not None and trace.operations[node] == "sigmoid"
        node = trace.parents[node][0] if node is not None and is_chance and trace.parents[node] else None
    return LOG_OF_SUM if _is_from(trace, node, trace.totals) else ""


def is_total(tensor: torch.Tensor, trace: Trace) -> bool:
    """Whether a tensor is one number that was made of such a sum."""
    return not tensor.dim() and bool(trace.totals) and _is_from(trace, trace.known(tensor), trace.totals)


def _is_from(trace: Trace, node: int | None, wanted: set[int]) -> bool:
    """Whether a tensor is one of these, or was computed of one by arithmetic with numbers, or with another one."""
    for _ in range(_FAR):
        if node is None or node in wanted:
            break
        parents = [parent for parent in trace.parents[node] if trace.carries_grad[parent]]
        node = parents[0] if parents and trace.operations[node] in _KEEPS else None
    return node is not None and node in wanted
