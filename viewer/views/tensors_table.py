"""The table below the graph: every tensor of the iteration, with its statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis.compare import row_of
from stepscope.store import Row, Step
from stepscope.store.records import SAMPLE_STATISTICS, STATISTICS
from stepscope.viewer.graph import tensor_key
from stepscope.viewer.resolve import role_label
from stepscope.viewer.selection import ALL, Selection
from stepscope.viewer.views.column import column, shown_statistic

COLUMNS = tuple(name for name in STATISTICS if name != "spectral_norm")


def rows_of(step: Step, selection: Selection) -> list[Row]:
    """The tensors of the iteration and of the whole step, of the chosen quantity, in the recording's order."""
    return list(step.rows(iteration=selection.iteration, quantity=selection.quantity))


def table_rows(step: Step, selection: Selection, other: Step | None) -> list[dict[str, Any]]:
    """One dictionary a tensor, with ``key`` as in the graph; numbers that are not finite are None.

    With a compared trial there are ``other`` and ``ratio`` besides, of the chosen statistic.
    """
    rows = rows_of(step, selection)
    names = COLUMNS if selection.sample == ALL else SAMPLE_STATISTICS
    columns = {name: column(step, name, selection.sample) for name in names}
    statistic = shown_statistic(selection.statistic, selection.sample)
    theirs = column(other, statistic, selection.sample) if other is not None else None
    own_gradients = _norms(step, "gradient")
    found = []
    for row in rows:
        entry = _entry(row)
        if selection.sample == ALL or row.info.batch_dim is not None:  # the others have no samples: nothing to show
            entry.update({name: _plain(values[row.index]) for name, values in columns.items()})
        if selection.quantity == "value" and (norm := own_gradients.get(_identity(row))) is not None:
            entry["gradient_norm"] = _plain(norm)
        if other is not None and theirs is not None:
            _compare(entry, row, other, theirs, columns.get(statistic, column(step, statistic, selection.sample)))
        found.append(entry)
    return found


def columns_of(selection: Selection, *, compared: bool) -> list[str]:
    """The columns with numbers, from left to right."""
    names = list(COLUMNS if selection.sample == ALL else SAMPLE_STATISTICS)
    if compared:
        statistic = shown_statistic(selection.statistic, selection.sample)
        names = [statistic, "other", "ratio", *(name for name in names if name != statistic)]
    return [*names, "gradient_norm"] if selection.quantity == "value" else names


def _entry(row: Row) -> dict[str, Any]:
    info = row.info
    return {
        "key": tensor_key(info.node, info.role, 0),
        "node": info.node,
        "role": info.role,
        "role_label": role_label(info.role, 0),
        "type": info.type,
        "shape": "×".join(map(str, row.shape)) if row.shape else "scalar",
    }


def _identity(row: Row) -> tuple[str, str, int]:
    return row.info.node, row.info.role, row.info.iteration


def _norms(step: Step, quantity: str) -> dict[tuple[str, str, int], float]:
    norms = step.statistics()[:, STATISTICS.index("norm")]
    return {_identity(row): float(norms[row.index]) for row in step.rows(quantity=quantity)}


def _compare(
    entry: dict[str, Any], row: Row, other: Step, theirs: NDArray[np.float64], mine: NDArray[np.float64]
) -> None:
    there = row_of(other, row)
    if there is None:
        return
    value = float(theirs[there.index])
    entry["other"] = _plain(value)
    if value:
        entry["ratio"] = _plain(float(mine[row.index]) / value)


def _plain(value: float) -> float | None:
    return float(f"{value:.6g}") if np.isfinite(value) else None
