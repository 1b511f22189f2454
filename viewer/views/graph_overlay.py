"""What is painted over the graph's boxes: a statistic's colours and numbers, and marks on what is not finite."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis.overview import non_finite_rows
from stepscope.store import Step
from stepscope.store.records import WHOLE_STEP
from stepscope.viewer.graph import tensor_key
from stepscope.viewer.numbers import short
from stepscope.viewer.selection import Selection
from stepscope.viewer.theme import DIVERGING, HEAT, color_of
from stepscope.viewer.views.column import column, shown_statistic

Overlay = dict[str, Any]
BY_TYPE, BY_CHANGE = "type", "change"
_BACKWARD = ("gradient", "update")
"""Quantities that are made after the values, and from them."""


def overlay(step: Step, selection: Selection, other: Step | None) -> Overlay:
    """The graph's overlay, as ``stepscope.viewer.graph`` describes it.

    Args:
        step: the step that is shown.
        selection: resolved; ``color`` says what is painted.
        other: the counterpart in the compared trial, for the colours of change.
    """
    assert selection.iteration is not None
    keys = _keys(step, selection.iteration)
    rows = [i for i, row in enumerate(step.layout.tensors) if i in keys and row.quantity == selection.quantity]
    found: Overlay = {"colours": {}, "texts": {}, "bad": _not_finite(step, keys, selection.quantity), "legend": None}
    if selection.color == BY_TYPE:
        return found
    if selection.color == BY_CHANGE:
        return found | (_changes(step, rows, keys, selection, other) if other is not None else {})
    statistic = shown_statistic(selection.color, selection.sample)
    values = column(step, statistic, selection.sample)
    return found | _heat(rows, keys, values, _title(statistic, selection))


def _not_finite(step: Step, keys: dict[int, str], quantity: str) -> list[str]:
    """The tensors to mark; among values no gradients, as one NaN makes nearly all of them NaN and hides its origin."""
    shown = {quantity} if quantity.startswith(_BACKWARD) else {quantity, "value"}
    bad = non_finite_rows(step)
    return sorted(
        {keys[i] for i, row in enumerate(step.layout.tensors) if i in keys and row.quantity in shown and bad[i]}
    )


def _keys(step: Step, iteration: int) -> dict[int, str]:
    """The overlay's key of each row that the iteration's graph shows."""
    lags = {(vertex.node, vertex.role, vertex.lag) for vertex in step.graph(iteration).vertices}
    keys = {}
    for index, row in enumerate(step.layout.tensors):
        lag = 0 if row.iteration == WHOLE_STEP else iteration - row.iteration
        if (row.node, row.role, lag) in lags:
            keys[index] = tensor_key(row.node, row.role, lag)
    return keys


def _title(statistic: str, selection: Selection) -> str:
    return statistic if selection.quantity == "value" else f"{statistic} of the {selection.quantity}"


def _heat(rows: list[int], keys: dict[int, str], values: NDArray[np.float64], title: str) -> Overlay:
    """Magnitudes on a logarithmic scale between the 2nd and the 98th percentile; zero is the lightest."""
    magnitudes = np.abs(values[rows])
    positive = magnitudes[np.isfinite(magnitudes) & (magnitudes > 0)]
    texts = {keys[row]: f"{title.partition(' ')[0]} {short(values[row])}" for row in rows if not np.isnan(values[row])}
    if not len(positive):
        return {"texts": texts}
    low, high = (float(bound) for bound in np.percentile(np.log10(positive), [2, 98]))
    colours = {}
    for row, magnitude in zip(rows, magnitudes.tolist(), strict=True):
        if np.isfinite(magnitude):
            place = (np.log10(magnitude) - low) / max(high - low, 1e-9) if magnitude > 0 else 0.0
            colours[keys[row]] = color_of(float(place))
    legend = {"title": f"|{title}|", "colours": list(HEAT), "low": short(10**low), "high": short(10**high)}
    return {"colours": colours, "texts": texts, "legend": legend}


def _changes(step: Step, rows: list[int], keys: dict[int, str], selection: Selection, other: Step) -> Overlay:
    """The logarithm of the ratio to the other trial: green is smaller, purple larger, white alike."""
    statistic = shown_statistic(selection.statistic, selection.sample)
    mine, theirs = (np.abs(column(which, statistic, selection.sample)) for which in (step, other))
    colours, texts = {}, {}
    for row in rows:
        info = step.layout.tensors[row]
        there = other.layout.row(info.node, info.quantity, info.role, info.iteration)
        if there is None or not (mine[row] > 0 and theirs[there] > 0):
            continue
        ratio = float(mine[row] / theirs[there])
        colours[keys[row]] = color_of(0.5 + np.log10(ratio) / 4, DIVERGING)
        texts[keys[row]] = f"{statistic} ×{short(ratio)}"
    title = f"{_title(statistic, selection)}, as a multiple of {selection.compare}'s"
    return {
        "colours": colours,
        "texts": texts,
        "legend": {"title": title, "colours": list(DIVERGING), "low": "×0.01", "high": "×100"},
    }
