"""The loss over the whole run, above every page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepscope.viewer.axes import wants_log
from stepscope.viewer.chart_parts import Curve, Figure, blank, cursor_line, escape, thin, traces
from stepscope.viewer.names import cut
from stepscope.viewer.theme import INK, LINES, TROUBLE, WARNING

_HEADLINE = 9
"""Letters beside the timeline, which is not high."""
_KIND = 24
"""Letters within it."""

OTHER_KIND = LINES[0]


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
    for curve in sorted(curves, key=lambda curve: not curve.kind):  # what trains is drawn on top
        parts = traces(replace(curve, color=OTHER_KIND) if curve.kind else curve, width=1.4)
        if curve.kind and not curve.dotted:  # its colour tells it apart, and dashes would be longer than it is high
            parts[0]["line"]["dash"] = "solid"
        figure["data"] += parts
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
    layout["annotations"] = [_name_of_kind(place, curve) for place, curve in enumerate(_other_kinds(curves))]
    if wants_log(curve.values for curve in curves):
        layout["yaxis"]["type"] = "log"
    return figure


def _other_kinds(curves: Sequence[Curve]) -> list[Curve]:
    return [curve for curve in curves if curve.kind and not curve.dotted]


def _name_of_kind(place: int, curve: Curve) -> dict[str, Any]:
    """The kind of a line, in its colour, in the corner."""
    text = f"<span style='fill: {OTHER_KIND}'>{escape(cut(curve.kind, _KIND))}</span>"
    return {
        "text": text, "xref": "paper", "yref": "paper", "x": 1, "y": 1 - 0.3 * place, "xanchor": "right",
        "yanchor": "top", "showarrow": False, "font": {"size": 10, "color": OTHER_KIND},
    }  # fmt: skip
