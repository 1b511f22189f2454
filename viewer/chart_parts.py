"""What all charts are made of: plain plotly dictionaries, quick to make, easy to test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepscope.viewer.names import cut
from stepscope.viewer.sampling import min_max
from stepscope.viewer.theme import CURSOR, GRID, INK, LINES, TROUBLE

Figure = dict[str, Any]
NAME = 46
"""Letters of a name that a legend or an axis shows; all of it is shown on hover."""
LETTER = 6.3
"""How wide a letter is, in pixels, about."""


@dataclass(frozen=True)
class Curve:
    """One line of a chart.

    Attributes:
        dotted: for the compared trial's.
        node: what a click on it selects.
        kind: of steps, if it is not the kind that trains.
    """

    name: str
    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    color: str = LINES[0]
    dotted: bool = False
    node: str = ""
    kind: str = ""

    @property
    def label(self) -> str:
        """Its name, with the kind."""
        return f"{self.name}, {self.kind}" if self.kind else self.name


def blank(height: int | None, margin: dict[str, int] | None = None) -> Figure:
    """A chart without anything in it, in colours that light and dark pages can bear."""
    axis = {"gridcolor": GRID, "zerolinecolor": GRID, "automargin": False, "ticks": ""}
    layout: Figure = {
        "margin": margin or {"l": 48, "r": 10, "t": 8, "b": 24},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": INK, "size": 11, "family": "system-ui, sans-serif"},
        "xaxis": dict(axis),
        "yaxis": {**axis, "exponentformat": "e"},
        "hovermode": "closest",
        "uirevision": "keep",
        "legend": {"orientation": "h", "y": 1, "yref": "container", "yanchor": "top", "x": 0, "font": {"size": 10}},
    }
    if height is not None:
        layout["height"] = height
    return {"data": [], "layout": layout}


def traces(curve: Curve, width: float = 1.6) -> list[dict[str, Any]]:
    """The line, and marks at the steps where it is not finite, which a line would just leave out."""
    steps, values = min_max(curve.steps, curve.values)
    finite = np.isfinite(values)
    line = {
        "type": "scatter", "mode": "lines+markers" if finite.sum() < 60 else "lines", "name": cut(curve.label, NAME),
        "meta": curve.node, "showlegend": not curve.kind,
        "x": steps.tolist(), "y": plain(values), "connectgaps": False, "marker": {"size": 4},
        "line": {"color": curve.color, "width": 0.7 * width if curve.kind else width, "dash": _dash(curve)},
        "hovertemplate": f"{escape(curve.label)}<br>step %{{x}}: %{{y:.5g}}<extra></extra>",
    }  # fmt: skip
    bad = ~np.isfinite(curve.values)
    if not bad.any():
        return [line]
    where = thin(curve.steps[bad], 300)
    known = curve.values[~bad]
    level = float(known.min()) if len(known) else 0.0
    rug = {
        "type": "scatter", "mode": "markers", "name": f"{curve.label}: not finite", "showlegend": False,
        "x": where.tolist(), "y": [level] * len(where), "marker": {"color": TROUBLE, "symbol": "x", "size": 6},
        "hovertemplate": f"{escape(curve.label)}<br>step %{{x}}: not finite<extra></extra>",
    }  # fmt: skip
    return [line, rug]


def _dash(curve: Curve) -> str:
    return "dot" if curve.dotted else "dash" if curve.kind else "solid"


def escape(text: str) -> str:
    """Text as plotly takes it, which reads some tags."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def plain(values: NDArray[np.float64]) -> list[Any]:
    """Lists for JSON, with None where a number is not finite."""
    objects = values.astype(object)
    objects[~np.isfinite(values)] = None
    found: list[Any] = objects.tolist()
    return found


def thin(values: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Some of the values, evenly spaced, if there are more than ``most``."""
    return values if len(values) <= most else values[np.linspace(0, len(values) - 1, most).astype(np.int64)]


def cursor_line(step: int | None, width: float = 1.2) -> list[dict[str, Any]]:
    """The line at the step that the page shows, if there is one."""
    if step is None:
        return []
    line = {"color": CURSOR, "width": width}
    return [{"type": "line", "x0": step, "x1": step, "y0": 0, "y1": 1, "yref": "paper", "line": line}]
