"""The histogram of a tensor, over signed magnitudes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stepscope.store import Histogram
from stepscope.viewer.chart_parts import Figure, blank
from stepscope.viewer.numbers import short
from stepscope.viewer.theme import INK, TROUBLE


def histogram(counts: Histogram, color: str, other: Histogram | None = None) -> Figure:
    """A histogram over signed magnitudes; zero, NaN and the infinities are bars of their own at their places."""
    figure = blank(None, margin={"l": 44, "r": 8, "t": 8, "b": 34})
    bars = _bars(counts)
    figure["data"].append(_bar_trace(bars, color, "this trial"))
    if other is not None:
        total, own = max(1, int(other.counts.sum())), int(counts.counts.sum())
        scaled = _bars(other, own / total)
        figure["data"].append(
            {"type": "scatter", "mode": "lines", "line": {"shape": "hvh", "dash": "dot", "width": 1.4,
             "color": INK}, "x": [b.x for b in scaled], "y": [b.y for b in scaled], "hoverinfo": "skip"}
        )  # fmt: skip
    layout = figure["layout"]
    ticks = _bar_ticks(bars)
    layout["xaxis"] |= {"tickvals": [x for x, _ in ticks], "ticktext": [text for _, text in ticks], "tickangle": 0}
    layout["bargap"] = 0
    layout["yaxis"]["exponentformat"] = "SI"
    layout["showlegend"] = False
    return figure


@dataclass(frozen=True)
class _Bar:
    x: float
    y: float
    label: str
    trouble: bool = False
    magnitude: float = math.nan


def _bars(counts: Histogram, scale: float = 1.0) -> list[_Bar]:
    """Bars from left to right: minus infinity, negative, zero, positive, plus infinity, NaN; empty ends left out."""
    edges = counts.edges()
    negative, positive = counts.negative, counts.positive
    used = np.flatnonzero(negative + positive)
    low, high = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 0)
    minus, plus = counts.infinities
    bars = []
    if minus:
        bars.append(_Bar(-(high - low) - 3.0, minus * scale, "−∞", True))
    for i in range(high - 1, low - 1, -1):
        label = f"−{short(edges[i + 1])} to −{short(edges[i])}"
        bars.append(_Bar(-(i - low) - 1.5, negative[i] * scale, label, magnitude=edges[i]))
    bars.append(_Bar(0.0, counts.zeros * scale, "zero", magnitude=0.0))
    for i in range(low, high):
        label = f"{short(edges[i])} to {short(edges[i + 1])}"
        bars.append(_Bar(i - low + 1.5, positive[i] * scale, label, magnitude=edges[i]))
    if plus:
        bars.append(_Bar(high - low + 3.0, plus * scale, "∞", True))
    if counts.nans:
        bars.append(_Bar(high - low + 4.5, counts.nans * scale, "NaN", True))
    return bars


def _bar_trace(bars: Sequence[_Bar], color: str, name: str) -> dict[str, Any]:
    return {
        "type": "bar", "x": [bar.x for bar in bars], "y": [bar.y for bar in bars], "width": 1, "name": name,
        "marker": {"color": [TROUBLE if bar.trouble else color for bar in bars], "line": {"width": 0}},
        "text": [bar.label for bar in bars], "textposition": "none",
        "hovertemplate": "%{text}<br>%{y:,.0f} elements<extra></extra>",
    }  # fmt: skip


def _bar_ticks(bars: Sequence[_Bar]) -> list[tuple[float, str]]:
    """A tick at zero, at what is not finite, and at a few powers of ten of either sign."""
    ticks = [(bar.x, bar.label if bar.trouble else "0") for bar in bars if bar.trouble or bar.magnitude == 0]
    sides = [[b for b in bars if b.x > 0 and not b.trouble], [b for b in bars if b.x < 0 and not b.trouble][::-1]]
    for sign, side in zip(("", "−"), sides, strict=True):
        step = max(8, 4 * math.ceil(len(side) / 12))
        for bar in side[step - 1 :: step]:
            ticks.append((bar.x, f"{sign}{short(float(f'{bar.magnitude:.0e}'))}"))
    return ticks
