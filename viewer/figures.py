"""The charts, as plain plotly figure dictionaries: quick to make, easy to test."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stepscope.store import Histogram
from stepscope.viewer.names import cut
from stepscope.viewer.numbers import short
from stepscope.viewer.sampling import min_max
from stepscope.viewer.theme import CURSOR, DIVERGING, GRID, HEAT, INK, LINES, TROUBLE, TYPE_COLORS, WARNING

Figure = dict[str, Any]
_NAME = 46
"""Letters of a name that a legend or an axis shows; all of it is shown on hover."""
_HEADLINE = 9
"""Letters beside the timeline, which is not high."""
_LETTER = 6.3
"""Pixels, about."""
_LINE = 46
"""Letters of a sentence in the place of a chart: what the narrowest charts have room for."""


@dataclass(frozen=True)
class Curve:
    """One line of a chart; ``dotted`` for the compared trial's; ``node`` is what a click on it selects."""

    name: str
    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    color: str = LINES[0]
    dotted: bool = False
    node: str = ""


def empty(text: str = "", height: int | None = None) -> Figure:
    """A chart without data that says why."""
    figure = _figure(height)
    axis = {"visible": False, "range": [0, 1]}
    figure["layout"] |= {"xaxis": axis, "yaxis": axis}
    if text:
        figure["layout"]["annotations"] = [
            {"text": "<br>".join(map(_escape, textwrap.wrap(text, _LINE))), "x": 0.5, "y": 0.5, "xref": "paper",
             "yref": "paper", "showarrow": False}
        ]  # fmt: skip
    return figure


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
    figure = _figure(None, margin={"l": 62, "r": 12, "t": 6, "b": 20})
    for curve in curves:
        figure["data"] += _traces(curve, width=1.4)
    ticks = _thin(recorded, 600)
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
                "yaxis": "y2", "name": "findings", "text": [_escape(text[:160]) for _, _, text in marks],
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
        layout["yaxis"]["title"] = {"text": _escape(name), "font": {"size": 10}, "standoff": 2}
    layout["showlegend"] = False
    # A click anywhere means the nearest recorded step.
    layout["hovermode"], layout["hoverdistance"] = "x", -1
    layout["shapes"] = _cursor(cursor, width=2)
    if wants_log(curve.values for curve in curves):
        layout["yaxis"]["type"] = "log"
    return figure


def history(
    curves: Sequence[Curve], cursor: int | None, *, log: bool, legend: Literal["top", "right"] = "top"
) -> Figure:
    """Curves over steps; the legend stands on top of a few curves, or at the right of many."""
    figure = _figure(None)
    figure["layout"]["showlegend"] = len(curves) > 1
    if legend == "right" and len(curves) > 1:
        longest = max(len(cut(curve.name, _NAME)) for curve in curves)
        figure["layout"]["margin"] = {"l": 52, "r": round(60 + _LETTER * longest), "t": 10, "b": 28}
        figure["layout"]["legend"] = {"x": 1.01, "xanchor": "left", "y": 1, "font": {"size": 11}}
    for curve in curves:
        figure["data"] += _traces(curve)
    figure["layout"]["shapes"] = _cursor(cursor)
    if log:
        figure["layout"]["yaxis"] |= _log_axis([curve.values for curve in curves])
    return figure


def histogram(counts: Histogram, color: str, other: Histogram | None = None) -> Figure:
    """A histogram over signed magnitudes; zero, NaN and the infinities are bars of their own at their places."""
    figure = _figure(None, margin={"l": 44, "r": 8, "t": 8, "b": 34})
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
    shorter = [cut(name, _NAME) for name in names]
    left = round(16 + _LETTER * max(map(len, shorter), default=0))
    figure = _figure(max(320, 60 + 15 * len(names)), margin={"l": left, "r": 20, "t": 26, "b": 12})
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
            "type": "heatmap", "x": [str(step) for step in steps], "y": list(names), "z": _plain(shown),
            "customdata": _plain(values), "zmin": low, "zmax": high if high > low else low + 1, "colorscale": scale,
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
        layout["shapes"] = _cursor(list(steps).index(cursor))
    return figure


def _log10(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.log10(values, where=values > 0, out=np.full(values.shape, np.nan))


def small_multiples(charts: Sequence[tuple[str, Sequence[Curve]]], cursor: int | None) -> Figure:
    """Several charts in three columns that share the axis of steps; each names its curves in their colours."""
    columns = min(3, max(1, len(charts)))
    rows = math.ceil(len(charts) / columns)
    figure = _figure(max(260, rows * 200), margin={"l": 44, "r": 10, "t": 24, "b": 28})
    layout = figure["layout"]
    layout |= {"annotations": [], "shapes": [], "showlegend": False}
    for index, (title, curves) in enumerate(charts):
        column, row = index % columns, index // columns
        suffix = "" if index == 0 else str(index + 1)
        left, right = (column + 0.06) / columns, (column + 0.94) / columns
        top = 1 - row / rows
        bottom = top - 0.72 / rows
        plain = {"gridcolor": GRID, "zerolinecolor": GRID, "exponentformat": "e"}
        layout[f"xaxis{suffix}"] = {**plain, "domain": [left, right], "anchor": f"y{suffix}", "matches": "x"}
        layout[f"yaxis{suffix}"] = {**plain, "domain": [bottom, top], "anchor": f"x{suffix}", **_range_of(curves)}
        layout["annotations"].append(_chart_title(title, curves, left, top))
        layout["shapes"] += [shape | {"xref": f"x{suffix}", "yref": f"y{suffix} domain"} for shape in _cursor(cursor)]
        for curve in curves:
            figure["data"] += [t | {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"} for t in _traces(curve)]
    return figure


def _range_of(curves: Sequence[Curve]) -> dict[str, Any]:
    """A logarithmic axis where that is needed; and some room around a constant, which plotly centres on zero."""
    values = np.concatenate([curve.values for curve in curves]) if curves else np.zeros(0)
    finite = values[np.isfinite(values)]
    if wants_log([values]):
        return _log_axis([values])
    if len(finite) and finite.min() == finite.max() and finite[0] != 0:
        return {"range": sorted([0.5 * float(finite[0]), 1.5 * float(finite[0])])}
    return {}


def _chart_title(title: str, curves: Sequence[Curve], left: float, top: float) -> dict[str, Any]:
    solid = [curve for curve in curves if not curve.dotted]
    names = [f'<span style="color:{c.color}">{_escape(c.name.partition(" (")[0])}</span>' for c in solid]
    text = "  ".join([f"<b>{_escape(title)}</b>", *names])
    return {
        "text": text, "x": left, "y": top, "xref": "paper", "yref": "paper", "xanchor": "left",
        "yanchor": "bottom", "showarrow": False, "font": {"size": 11},
    }  # fmt: skip


# ---------------------------------------------------------------------- parts


def _figure(height: int | None, margin: dict[str, int] | None = None) -> Figure:
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


def _traces(curve: Curve, width: float = 1.6) -> list[dict[str, Any]]:
    """The line, and marks at the steps where it is not finite, which a line would just leave out."""
    steps, values = min_max(curve.steps, curve.values)
    finite = np.isfinite(values)
    line = {
        "type": "scatter", "mode": "lines+markers" if finite.sum() < 60 else "lines", "name": cut(curve.name, _NAME),
        "meta": curve.node,
        "x": steps.tolist(), "y": _plain(values), "connectgaps": False, "marker": {"size": 4},
        "line": {"color": curve.color, "width": width, "dash": "dot" if curve.dotted else "solid"},
        "hovertemplate": f"{_escape(curve.name)}<br>step %{{x}}: %{{y:.5g}}<extra></extra>",
    }  # fmt: skip
    bad = ~np.isfinite(curve.values)
    if not bad.any():
        return [line]
    where = _thin(curve.steps[bad], 300)
    known = curve.values[~bad]
    level = float(known.min()) if len(known) else 0.0
    rug = {
        "type": "scatter", "mode": "markers", "name": f"{curve.name}: not finite", "showlegend": False,
        "x": where.tolist(), "y": [level] * len(where), "marker": {"color": TROUBLE, "symbol": "x", "size": 6},
        "hovertemplate": f"{_escape(curve.name)}<br>step %{{x}}: not finite<extra></extra>",
    }  # fmt: skip
    return [line, rug]


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _plain(values: NDArray[np.float64]) -> list[Any]:
    """Lists for JSON, with None where a number is not finite."""
    objects = values.astype(object)
    objects[~np.isfinite(values)] = None
    plain: list[Any] = objects.tolist()
    return plain


def _thin(values: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    return values if len(values) <= most else values[np.linspace(0, len(values) - 1, most).astype(np.int64)]


def _cursor(step: int | None, width: float = 1.2) -> list[dict[str, Any]]:
    if step is None:
        return []
    line = {"color": CURSOR, "width": width}
    return [{"type": "line", "x0": step, "x1": step, "y0": 0, "y1": 1, "yref": "paper", "line": line}]


def wants_log(curves: Iterable[NDArray[np.float64]]) -> bool:
    """Whether curves span so much that a linear axis would show little: none negative, and three decades or more.

    Where some are zero, which no logarithmic axis can show, they must also be small for the most part.
    """
    finite = _finite(curves)
    positive = finite[finite > 0]
    if not len(positive) or finite.min() < 0 or positive.max() / positive.min() <= 1000:
        return False
    return bool(finite.min() > 0 or np.median(finite) < 0.1 * finite.max())


def _log_axis(curves: Iterable[NDArray[np.float64]]) -> dict[str, Any]:
    """Labels at whole powers of ten, as many as there is room for; between them, too, where there are few."""
    finite = _finite(curves)
    positive = finite[finite > 0]
    decades = math.log10(positive.max() / positive.min()) if len(positive) else 0.0
    return {"type": "log", **({"dtick": math.ceil(decades / 6)} if decades > 1.5 else {})}


def _finite(curves: Iterable[NDArray[np.float64]]) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.concatenate([np.zeros(0), *(np.ravel(curve) for curve in curves)])
    finite: NDArray[np.float64] = values[np.isfinite(values)]
    return finite


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


__all__ = [
    "TYPE_COLORS",
    "Curve",
    "empty",
    "heat_map",
    "histogram",
    "history",
    "small_multiples",
    "timeline",
    "wants_log",
]
