"""Several small charts that share the axis of steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from stepscope.viewer.axes import log_axis, wants_log
from stepscope.viewer.chart_parts import Curve, Figure, blank, cursor_line, escape, traces
from stepscope.viewer.theme import GRID


def small_multiples(charts: Sequence[tuple[str, Sequence[Curve]]], cursor: int | None) -> Figure:
    """Several charts in three columns that share the axis of steps; each names its curves in their colours."""
    columns = min(3, max(1, len(charts)))
    rows = math.ceil(len(charts) / columns)
    figure = blank(max(260, rows * 200), margin={"l": 44, "r": 10, "t": 24, "b": 28})
    layout = figure["layout"]
    layout |= {"annotations": [], "shapes": [], "showlegend": False}
    for index, (title, curves) in enumerate(charts):
        column, row = index % columns, index // columns
        suffix = "" if index == 0 else str(index + 1)
        left, right = (column + 0.06) / columns, (column + 0.94) / columns
        top = 1 - row / rows
        bottom = top - 0.72 / rows
        axis = {"gridcolor": GRID, "zerolinecolor": GRID, "exponentformat": "e"}
        layout[f"xaxis{suffix}"] = {**axis, "domain": [left, right], "anchor": f"y{suffix}", "matches": "x"}
        layout[f"yaxis{suffix}"] = {**axis, "domain": [bottom, top], "anchor": f"x{suffix}", **_range_of(curves)}
        layout["annotations"].append(_chart_title(title, curves, left, top))
        layout["shapes"] += [
            shape | {"xref": f"x{suffix}", "yref": f"y{suffix} domain"} for shape in cursor_line(cursor)
        ]
        for curve in curves:
            figure["data"] += [t | {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"} for t in traces(curve)]
    return figure


def _range_of(curves: Sequence[Curve]) -> dict[str, Any]:
    """A logarithmic axis where that is needed; and some room around a constant, which plotly centres on zero."""
    values = np.concatenate([curve.values for curve in curves]) if curves else np.zeros(0)
    finite = values[np.isfinite(values)]
    if wants_log([values]):
        return log_axis([values])
    if len(finite) and finite.min() == finite.max() and finite[0] != 0:
        return {"range": sorted([0.5 * float(finite[0]), 1.5 * float(finite[0])])}
    return {}


def _chart_title(title: str, curves: Sequence[Curve], left: float, top: float) -> dict[str, Any]:
    solid = [curve for curve in curves if not curve.dotted]
    names = [f'<span style="color:{c.color}">{escape(c.name.partition(" (")[0])}</span>' for c in solid]
    text = "  ".join([f"<b>{escape(title)}</b>", *names])
    return {
        "text": text, "x": left, "y": top, "xref": "paper", "yref": "paper", "xanchor": "left",
        "yanchor": "bottom", "showarrow": False, "font": {"size": 11},
    }  # fmt: skip
