"""Curves over steps, of one trial and of the compared one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stepscope.analysis import Finding
from stepscope.store import Series, Tensor, Trial
from stepscope.store.errors import StoreError
from stepscope.store.records import BATCH_AGGREGATES
from stepscope.viewer.axes import wants_log
from stepscope.viewer.chart_parts import Curve, Figure
from stepscope.viewer.figures import empty, history
from stepscope.viewer.histogram_chart import histogram
from stepscope.viewer.selection import ALL, Selection
from stepscope.viewer.theme import LINES, TYPE_COLORS
from stepscope.viewer.timeline import timeline
from stepscope.viewer.views.by_kind import by_kind
from stepscope.viewer.views.column import shown_statistic
from stepscope.viewer.views.moment import Moment


@dataclass(frozen=True)
class Question:
    """Which curve is wanted, of any trial."""

    node: str
    role: str | None
    iteration: int | None
    quantity: str
    statistic: str
    sample: str
    kind: str


def read(trial: Trial, question: Question) -> Series:
    """The curve in a trial; empty where the trial has no such tensor."""
    aggregate = question.sample if question.sample in BATCH_AGGREGATES else None
    single = question.sample not in (ALL, *BATCH_AGGREGATES)
    try:
        return trial.series(
            question.node,
            statistic=question.statistic,
            quantity=question.quantity,
            role=question.role,
            iteration=question.iteration,
            kind=question.kind or None,
            aggregate=aggregate,
            sample=int(question.sample.partition(":")[2]) if single else None,
        )
    except StoreError:
        return Series(np.zeros(0, np.int64), np.zeros(0))


def tensor_history(now: Moment, tensor: Tensor) -> Figure:
    """The chosen statistic of the selected tensor over steps, in both trials."""
    wish = now.selection
    info = tensor.info
    statistic = shown_statistic(wish.statistic, wish.sample)
    if statistic == "ratio" and info.quantity != "update":
        statistic = "std"
    if statistic == "std" and math.prod(tensor.shape) == 1:
        statistic = "mean"  # a single number does not spread
    iteration = info.iteration if info.iteration >= 0 and len(now.step.iterations) > 1 else None
    question = Question(info.node, info.role, iteration, info.quantity, statistic, wish.sample, wish.kind)
    curves = pair(now.trial, now.other, question, statistic, TYPE_COLORS.get(info.type, LINES[0]))
    if not curves:
        return empty("not recorded at other steps")
    figure = history(curves, now.step.number, log=wants_log(curve.values for curve in curves))
    is_compared = any(curve.dotted for curve in curves)
    label = f"{statistic}: {wish.trial} solid, {wish.compare} dotted" if is_compared else statistic
    figure["layout"]["title"] = {"text": f"{label}, over steps", "font": {"size": 11}, "x": 0.02, "y": 0.98}
    figure["layout"] |= {"showlegend": False, "margin": {"l": 48, "r": 10, "t": 22, "b": 22}}
    return figure


def pair(trial: Trial, other: Trial | None, question: Question, name: str, color: str) -> list[Curve]:
    """A curve of a trial, and the same of the compared one, dotted; left out where there are no values.

    Where all kinds of steps are wanted, each has a line of its own, if they are few.
    """
    label = name if other is None else f"{name} ({trial.name})"
    found = [*by_kind(trial, Curve(label, *read(trial, question), color, node=question.node))]
    if other is not None:
        theirs = Curve(f"{name} ({other.name})", *read(other, question), color, True, question.node)
        found += by_kind(other, theirs)
    return [curve for curve in found if len(curve.steps)]


def tensor_histogram(now: Moment, tensor: Tensor) -> Figure:
    """The histogram of the selected tensor, with the outline of the compared trial's."""
    other = now.counterpart_of(tensor)
    color = TYPE_COLORS.get(tensor.info.type, LINES[0])
    try:
        return histogram(tensor.histogram, color, other.histogram if other is not None else None)
    except StoreError as error:
        return empty(str(error))


def run_timeline(trial: Trial, other: Trial | None, selection: Selection, findings: Sequence[Finding] = ()) -> Figure:
    """The loss over the whole run, if there is one, the steps that were recorded, and where findings begin."""
    curves = loss_curves(trial, other, selection.kind)
    return timeline(curves, trial.steps, selection.step, _marks(findings))


def _marks(findings: Sequence[Finding]) -> list[tuple[int, str, str]]:
    """One mark a step: the gravest of what begins there, which comes first, and how much else."""
    at: dict[int, list[Finding]] = {}
    for finding in findings:
        if finding.step is not None and finding.level != "info":
            at.setdefault(finding.step, []).append(finding)
    more = {step: f" (and {len(found) - 1} more)" if len(found) > 1 else "" for step, found in at.items()}
    return [(step, found[0].level, found[0].summary + more[step]) for step, found in at.items()]


def loss_curves(trial: Trial, other: Trial | None, kind: str) -> list[Curve]:
    """The recorded loss; else a scalar that is named like one."""
    losses = [node for node in trial.nodes if node.type == "loss"]
    if losses:
        name = next((node.name for node in losses if node.name == "loss"), losses[-1].name)
        question = Question(name, None, None, "value", "mean", ALL, kind)
        return pair(trial, other, question, name, TYPE_COLORS["loss"])
    for group, name in trial.scalar_names:
        if "loss" in f"{group}/{name}".lower():
            return [Curve(name, *trial.scalars(name, group=group, kind=kind or None), TYPE_COLORS["loss"])]
    return []


__all__ = [
    "Question", "loss_curves", "pair", "read", "run_timeline", "tensor_histogram", "tensor_history",
]  # fmt: skip
