"""All nodes over the steps, as a heat map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stepscope.viewer.chart_parts import LETTER, NAME, Figure, blank, cursor_line, plain
from stepscope.viewer.names import cut
from stepscope.viewer.theme import DIVERGING, HEAT


def heat_map(
    names: Sequence[str],
    steps: Sequence[int],
    values: NDArray[np.float64],
    cursor: int | None,
    *,
    log: bool,
    ratio: bool = False,
) -> Figure:
    """Nodes by steps: ``values`` is ``(nodes, steps)``; the first node is on top.

    With ``ratio`` the values are multiples: green below 1, white at 1, purple above.
    """
    shorter = [cut(name, NAME) for name in names]
    left = round(16 + LETTER * max(map(len, shorter), default=0))
    figure = blank(max(320, 60 + 15 * len(names)), margin={"l": left, "r": 20, "t": 26, "b": 12})
    shown = _log10(np.abs(values)) if log or ratio else values
    finite = shown[np.isfinite(shown)]
    low, high = (np.percentile(finite, [2, 98]).tolist()) if finite.size else (0.0, 1.0)
    if ratio:
        high = max(abs(low), abs(high), 0.1)
        low = -high
    colors = DIVERGING if ratio else HEAT
    scale = [[i / (len(colors) - 1), color] for i, color in enumerate(colors)]
    title = "log10 of the ratio" if ratio else "log10 |value|" if log else ""
    figure["data"].append(
        {
            "type": "heatmap", "x": [str(step) for step in steps], "y": list(names), "z": plain(shown),
            "customdata": plain(values), "zmin": low, "zmax": high if high > low else low + 1, "colorscale": scale,
            "hovertemplate": "%{y}<br>step %{x}: %{customdata:.4g}<extra></extra>", "hoverongaps": False,
            "colorbar": {"thickness": 12, "title": {"text": title, "side": "right"},
                         "lenmode": "pixels", "len": 300, "y": 1, "yanchor": "top"},
        }
    )  # fmt: skip
    layout = figure["layout"]
    layout["yaxis"] |= {"autorange": "reversed", "tickfont": {"family": "monospace", "size": 10}}
    layout["yaxis"] |= {"tickmode": "array", "tickvals": list(names), "ticktext": shorter}
    layout["xaxis"] |= {"type": "category", "nticks": 12, "side": "top"}
    layout["uirevision"] = "heat"
    if cursor is not None and cursor in steps:
        layout["shapes"] = cursor_line(list(steps).index(cursor))
    return figure


def _log10(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.log10(values, where=values > 0, out=np.full(values.shape, np.nan))
