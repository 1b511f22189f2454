"""The colours of charts; the graph's and the page's live in ``assets/``."""

from __future__ import annotations

TYPE_COLORS = {
    "input": "#2f9e44",
    "parameter": "#e8b008",
    "buffer": "#9c8b70",
    "calculated": "#7c83d6",
    "target": "#0c8599",
    "loss": "#c2255c",
}
CURSOR = "#d6336c"
TROUBLE = "#e03131"
WARNING = "#f08c00"
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999933", "#882255")
"""Okabe and Ito's colours for lines (2008), but for the yellow, which is too light, and black."""
INK = "#6b7280"
GRID = "rgba(128, 128, 128, 0.25)"
"""Readable on light and dark alike; ``assets/app.css`` puts better ones over them where it can."""
HEAT = ("#fffde0", "#d9f0b8", "#a4dbb6", "#62c2bf", "#2f9fc2", "#2661a8", "#182f78")
"""Small to large, light to dark; without red and orange, which are for trouble only."""
DIVERGING = ("#1b7837", "#7fbf7b", "#d9f0d3", "#f7f7f7", "#e7d4e8", "#af8dc3", "#762a83")
"""Smaller is green, larger purple."""


def color_of(position: float, scale: tuple[str, ...] = HEAT) -> str:
    """A colour of a scale; ``position`` from 0 to 1."""
    place = min(max(position, 0.0), 1.0) * (len(scale) - 1)
    low = min(int(place), len(scale) - 2)
    share = place - low
    first, second = (tuple(int(scale[i][j : j + 2], 16) for j in (1, 3, 5)) for i in (low, low + 1))
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(first, second, strict=True))
