"""Curves over the steps, and the chart that has nothing to show."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Literal

from stepscope.viewer.axes import log_axis
from stepscope.viewer.chart_parts import LETTER, NAME, Curve, Figure, blank, cursor_line, escape, traces
from stepscope.viewer.names import cut

_LINE = 46
"""Letters of a sentence in the place of a chart: what the narrowest charts have room for."""


def empty(text: str = "", height: int | None = None) -> Figure:
    """A chart without data that says why."""
    figure = blank(height)
    axis = {"visible": False, "range": [0, 1]}
    figure["layout"] |= {"xaxis": axis, "yaxis": axis}
    if text:
        figure["layout"]["annotations"] = [
            {"text": "<br>".join(map(escape, textwrap.wrap(text, _LINE))), "x": 0.5, "y": 0.5, "xref": "paper",
             "yref": "paper", "showarrow": False}
        ]  # fmt: skip
    return figure


def history(
    curves: Sequence[Curve], cursor: int | None, *, log: bool, legend: Literal["top", "right"] = "top"
) -> Figure:
    """Curves over steps; the legend stands on top of a few curves, or at the right of many."""
    figure = blank(None)
    figure["layout"]["showlegend"] = len(curves) > 1
    if legend == "right" and len(curves) > 1:
        longest = max(len(cut(curve.name, NAME)) for curve in curves)
        figure["layout"]["margin"] = {"l": 52, "r": round(60 + LETTER * longest), "t": 10, "b": 28}
        figure["layout"]["legend"] = {"x": 1.01, "xanchor": "left", "y": 1, "font": {"size": 11}}
    for curve in curves:
        figure["data"] += traces(curve)
    figure["layout"]["shapes"] = cursor_line(cursor)
    if log:
        figure["layout"]["yaxis"] |= log_axis([curve.values for curve in curves])
    return figure
