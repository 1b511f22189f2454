"""The page of curves: one statistic of chosen nodes over all steps, or of all nodes as a heat map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stepscope.store import Node, Trial
from stepscope.viewer.axes import wants_log
from stepscope.viewer.chart_parts import Curve, Figure
from stepscope.viewer.figures import empty, history
from stepscope.viewer.heat_map import heat_map
from stepscope.viewer.selection import Selection
from stepscope.viewer.theme import LINES
from stepscope.viewer.views.column import shown_statistic
from stepscope.viewer.views.curves import Question, pair, read

_MOST_STEPS = 400
_MOST_NODES = 1000
_MOST_LINES = 24


def over_steps(trial: Trial, other: Trial | None, selection: Selection) -> tuple[Figure, str]:
    """The page's chart, and a sentence of what it shows and what it leaves out."""
    if len(trial.steps) == 0:
        return empty("no step was recorded yet"), ""
    if selection.mode == "heat":
        return _heat(trial, other, selection)
    return _lines(trial, other, selection)


def shown_nodes(trial: Trial, selection: Selection) -> list[Node]:
    """The nodes whose curves are drawn: the pinned ones and the selected one, else some of those that were measured."""
    known = {node.name: node for node in trial.nodes if selection.quantity in node.quantities}
    chosen = [name for name in dict.fromkeys([*selection.pinned, selection.node]) if name in known]
    if not chosen:
        types = ("loss", "calculated") if selection.quantity == "value" else ("calculated", "parameter")
        chosen = [name for name, node in known.items() if node.type in types][-8:] or list(known)[-8:]
    return [known[name] for name in chosen[:_MOST_LINES]]


def _question(selection: Selection, node: Node) -> Question:
    role = selection.role if node.name == selection.node and selection.role in node.roles else None
    statistic = shown_statistic(selection.statistic, selection.sample)
    if statistic == "std" and node.type == "loss":
        statistic = "mean"  # a single number does not spread
    return Question(node.name, role, None, selection.quantity, statistic, selection.sample, selection.kind)


def _lines(trial: Trial, other: Trial | None, selection: Selection) -> tuple[Figure, str]:
    curves: list[Curve] = []
    nodes = shown_nodes(trial, selection)
    questions = [_question(selection, node) for node in nodes]
    statistics = {question.statistic for question in questions}
    wanted = statistics.pop() if len(statistics) == 1 else shown_statistic(selection.statistic, selection.sample)
    for index, (node, question) in enumerate(zip(nodes, questions, strict=True)):
        alone = "" if question.statistic == wanted else f", {question.statistic}"
        curves += pair(trial, other, question, node.name + alone, LINES[index % len(LINES)])
    what = _what(wanted, selection.quantity)
    if not curves:
        return empty(f"no {what} was recorded of these nodes; choose others, or another quantity"), ""
    log = selection.log if selection.log is not None else wants_log(curve.values for curve in curves)
    figure = history(curves, selection.step, log=log, legend="right")
    names = nodes[0].name if len(nodes) == 1 else f"{len(nodes)} nodes"
    return figure, f"{what} of {names}. Click to go to a step.{_dashed(curves)}{_without_zeros(curves, log=log)}"


def _dashed(curves: list[Curve]) -> str:
    kinds = dict.fromkeys(curve.kind for curve in curves if curve.kind and not curve.dotted)
    return f" Dashed: {' and '.join(kinds)}." if kinds else ""


def _without_zeros(curves: list[Curve], *, log: bool) -> str:
    zeros = log and any((curve.values == 0).any() for curve in curves)
    return " Zeros have no place on this axis." if zeros else ""


def _heat(trial: Trial, other: Trial | None, selection: Selection) -> tuple[Figure, str]:
    nodes = [node for node in trial.nodes if selection.quantity in node.quantities]
    steps = _thinned(_steps_of_kind(trial, selection.kind))
    shown = nodes[:_MOST_NODES]
    if not shown or not len(steps):
        return empty(f"nothing was recorded of the {selection.quantity}"), ""
    values = heat_values(trial, shown, steps, selection)
    what = _what(shown_statistic(selection.statistic, selection.sample), selection.quantity)
    text = f"{what} of {len(shown)} nodes in data-flow order, at {len(steps)} steps"
    if len(shown) < len(nodes):
        text += f" (the first {len(shown)} of {len(nodes)} nodes)"
    if other is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            values = values / heat_values(other, shown, steps, selection)
        text += f", as a multiple of {other.name}'s"
    log = selection.log if selection.log is not None else wants_log([np.abs(values)])
    if not np.isfinite(values).all() or (log and (values == 0).any()):
        text += ". Gaps: not recorded, or not finite" + (", or zero" if log else "")
    names = [node.name for node in shown]
    figure = heat_map(names, steps.tolist(), values, selection.step, log=log, ratio=other is not None)
    return figure, text + ". Click to go there."


def heat_values(trial: Trial, nodes: list[Node], steps: NDArray[np.int64], selection: Selection) -> NDArray[np.float64]:
    """``(nodes, steps)``: NaN where a node was not recorded."""
    values = np.full((len(nodes), len(steps)), np.nan)
    for index, node in enumerate(nodes):
        series = read(trial, _question(selection, node))
        _, at, there = np.intersect1d(steps, series.steps, return_indices=True)
        values[index, at] = series.values[there]
    return values


def _steps_of_kind(trial: Trial, kind: str) -> NDArray[np.int64]:
    if not kind:
        return trial.steps
    return np.array([n for n, own in zip(trial.steps.tolist(), trial.step_kinds, strict=True) if own == kind], np.int64)


def _thinned(steps: NDArray[np.int64]) -> NDArray[np.int64]:
    if len(steps) <= _MOST_STEPS:
        return steps
    return steps[np.linspace(0, len(steps) - 1, _MOST_STEPS).astype(np.int64)]


def _what(statistic: str, quantity: str) -> str:
    return statistic if quantity == "value" else f"{statistic} of the {quantity}"
