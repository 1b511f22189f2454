"""The loss over the whole run, above every page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stepscope.viewer.axes import wants_log
from stepscope.viewer.chart_parts import Curve, Figure, blank, cursor_line, escape, thin, traces
from stepscope.viewer.names import cut
from stepscope.viewer.theme import INK, TROUBLE, WARNING

_HEADLINE = 9
"""Letters beside the timeline, which is not high."""


def timeline(
    curves: Sequence[Curve],
    recorded: NDArray[np.int64],
    cursor: int | None,
    marks: Sequence[tuple[int, str, str]] = (),
) -> Figure:
    """The loss over the whole run, with a tick for each recorded step, a mark for each trouble, and a cursor.

    Args:
        marks: of each trouble its step, its level and a sentence.
    """
    figure = blank(None, margin={"l": 62, "r": 12, "t": 6, "b": 20})
    for curve in curves:
        figure["data"] += traces(curve, width=1.4)
    ticks = thin(recorded, 600)
    figure["data"].append(
        {
            "type": "scatter", "mode": "markers", "x": ticks.tolist(), "y": [0.0] * len(ticks), "yaxis": "y2",
            "marker": {"symbol": "line-ns-open", "size": 7, "color": INK, "opacity": 0.55},
            "hovertemplate": "recorded step %{x}<extra></extra>", "name": "recorded",
        }
    )  # fmt: skip
    if marks:
        figure["data"].append(
            {
                "type": "scatter", "mode": "markers", "x": [step for step, _, _ in marks], "y": [0.88] * len(marks),
                "yaxis": "y2", "name": "findings", "text": [escape(text[:160]) for _, _, text in marks],
                "marker": {"symbol": "triangle-down", "size": 9,
                           "color": [TROUBLE if level == "error" else WARNING for _, level, _ in marks]},
                "hovertemplate": "step %{x}: %{text}<extra></extra>",
            }
        )  # fmt: skip
    layout = figure["layout"]
    layout["yaxis2"] = {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True}
    layout["xaxis"]["fixedrange"] = layout["yaxis"]["fixedrange"] = True
    layout["yaxis"] |= {"nticks": 3, "exponentformat": "e", "tickfont": {"size": 10}}
    if curves:
        name = cut(curves[0].name.partition(" (")[0], _HEADLINE)
        layout["yaxis"]["title"] = {"text": escape(name), "font": {"size": 10}, "standoff": 2}
    layout["showlegend"] = False
    # A click anywhere means the nearest recorded step.
    layout["hovermode"], layout["hoverdistance"] = "x", -1
    layout["shapes"] = cursor_line(cursor, width=2)
    if wants_log(curve.values for curve in curves):
        layout["yaxis"]["type"] = "log"
    return figure
