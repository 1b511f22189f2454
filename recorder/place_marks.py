"""Slices: where they begin; and encodings of places that are added along the batch, one row of a table a sample."""

from __future__ import annotations

from typing import Any

import torch

from stepscope.recorder.trace import Trace

_KEEPS = frozenset(
    ["unsqueeze", "to", "float", "expand", "expand_as", "detach", "clone", "mul", "rmul", "dropout", "requires_grad"]
)
"""What leaves the rows of a table where they are."""
_COUNTS = frozenset(["arange", "unsqueeze", "getitem", "expand", "to", "long", "repeat"])
_FAR = 6


def note_slice(made: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], trace: Trace) -> str:
    """Remember what is the beginning of a longer table, and what begins later than the tensor that it was cut from."""
    start = _start(args[1], args[0].dim())
    if start:
        trace.starts[trace.node(made)] = start
    index = args[1][0] if isinstance(args[1], tuple) and args[1] else args[1]
    if isinstance(index, slice) and not index.start and index.step is None and index.stop is not None:
        table = args[0]
        if made.dim() == table.dim() and 1 < made.shape[0] < table.shape[0] and not _is_of_data(trace, table):
            trace.beginnings.add(trace.node(made))
    return ""


def _start(index: Any, dimensions: int) -> int:
    """Where a slice of the second dimension begins, or of the first if there is none; 0 for its beginning."""
    entries = index if isinstance(index, tuple) else (index,)
    hidden = next((place for place, entry in enumerate(entries) if entry is Ellipsis), None)
    if hidden is not None:
        whole = (slice(None),) * (dimensions - len(entries) + 1)
        entries = (*entries[:hidden], *whole, *entries[hidden + 1 :])
    starts = [entry.start for entry in entries[:2] if isinstance(entry, slice) and isinstance(entry.start, int)]
    return starts[-1] if starts and starts[-1] > 0 else 0


def mark_of_places(made: torch.Tensor, args: tuple[Any, ...], trace: Trace) -> str:
    """Whether a table's first rows are added, or multiplied, along the first dimension, the same at all moments."""
    if made.dim() != 3 or made.shape[0] < 2 or made.shape[1] < 2 or len(args) < 2:
        return ""
    for one, other in (args[:2], args[1::-1]):
        if (
            isinstance(one, torch.Tensor)
            and isinstance(other, torch.Tensor)
            and one.shape == made.shape
            and other.shape == (made.shape[0], 1, made.shape[2])
            and _is_beginning(trace, trace.known(other))
        ):
            return f"along first: {made.shape[0]}"
    return ""


def _is_beginning(trace: Trace, node: int | None) -> bool:
    for _ in range(_FAR):
        if node is None or node in trace.beginnings:
            break
        parents, operation = trace.parents[node], trace.operations[node]
        if operation == "embedding":
            return any(_is_count(trace, parent) for parent in parents)
        node = parents[0] if parents and (operation in _KEEPS or operation == "getitem") else None
    return node is not None


def _is_count(trace: Trace, node: int) -> bool:
    """Whether a tensor is 0, 1, 2, ... and was made in the step."""
    while trace.operations[node] in _COUNTS and trace.parents[node]:
        node = trace.parents[node][0]
    return trace.operations[node] == "arange"


def _is_of_data(trace: Trace, tensor: torch.Tensor) -> bool:
    """Whether a table was computed; a parameter or a buffer was not."""
    node = trace.known(tensor)
    return node is not None and bool(trace.parents[node])
