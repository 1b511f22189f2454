"""The rule ``input-drift``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.critics import plays
from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.flow import Place
from stepscope.analysis.history import History, Values
from stepscope.analysis.layers import rms
from stepscope.analysis.loss_inputs import is_floating
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_LEAST, _FIRST = 20, 4


@dataclass(frozen=True)
class InputDrift(Rule):
    """Inputs that grow, shrink or move steadily over the training: the data themselves are changed.

    Symptom: training starts well; validation gets worse and worse although the training's loss may still fall.

    How it is measured: the root mean square of each floating input (and target that is not computed in the step) over
    the training steps. It must rise, or fall, from each third of them to the next, and rank like the steps: data that
    are drawn at random go up and down. What only nearly ranks like them is worth knowing: what an agent sees changes
    with what it does. It begins where the first level is left.

    Causes: samples that are changed in place (``x -= mean``, ``add_``, ``Normalize(inplace=True)``) while they are
    views of the data, so that each epoch changes them once more; statistics that are added up without end.

    Remedy: work on a copy (``x = x - mean``, ``clone()``) where samples are read or augmented.

    Attributes:
        ratio: the last eighth against the first, or its inverse. Source: of 434 recorded runs without this mistake only
            two leave 1.4, by a carried state and by a second file, and neither does so steadily.
        rank: the correlation of the ranks with the order of the steps. Source: one jump from a level to another has
            0.87 at most.
        sure: the same for a warning. Source: of ours; what an agent sees wanders to and fro besides.
    """

    name = "input-drift"
    causes = "Samples that are changed in place while they are views of the data: each epoch changes them once more."
    remedy = "Work on a copy where samples are read or augmented: x = x - mean instead of x -= mean, or clone()."
    ratio: float = 1.5
    rank: float = 0.9
    sure: float = 0.95

    def check(self, view: View) -> Iterable[Finding]:
        for place in _given(view):
            history = view.history(place.node, role=place.role)
            sizes = rms(history)
            if len(history) >= _LEAST and np.isfinite(sizes).all() and self._drifts(sizes):
                yield self._finding(view, place, history, sizes)

    def _drifts(self, sizes: Values) -> bool:
        first, last = _ends(sizes)
        thirds = [float(np.median(part)) for part in np.array_split(sizes, 3)]
        steps = np.diff(thirds) / max(thirds[1], 1e-30)
        is_steady = bool((steps > 0.1).all() or (steps < -0.1).all())
        is_far = max(first, last) > self.ratio * min(first, last)
        return is_steady and is_far and abs(_rank_correlation(sizes)) > self.rank

    def _finding(self, view: View, place: Place, history: History, sizes: Values) -> Finding:
        first, last = _ends(sizes)
        level: Level = "warning" if abs(_rank_correlation(sizes)) > self.sure else "info"
        vertex = view.flow.vertices[place]
        onset = int(history.steps[_onset(sizes)])
        how = "grow" if last > first else "shrink"
        made = (
            f" The last operation on them is {vertex.operation}: if it works in place, on" if vertex.operation else ""
        )
        summary = (
            f"The {vertex.type}s drift: {place.node} {how}s from {first:.3g} to {last:.3g} in size, from step "
            f"{onset} on, as if its samples were changed in place, once more in each epoch."
        )
        if made:
            summary += f"{made} a view of the data, they keep it."
        shown = [evidence(history, "std", "its spread"), evidence(history, "mean", "its mean")]
        return self.finding(
            view, place.node, level, summary, shown, step=onset, confidence=0.8, source=vertex.source
        )  # fmt: skip


def _given(view: View) -> Iterator[Place]:
    """Floating data of several numbers a batch, whose shape stays the same."""
    for place in view.flow.of_type("input", *([] if plays(view) else ["target"])):  # returns change with the policy
        is_computed = view.flow.vertices[place].type == "target" and view.flow.vertices[place].operation
        if is_computed or not view.training or not is_floating(view, place):
            continue
        shapes = {view.shape(place, step) for step in (view.training[0], view.training[-1])}
        shape = next(iter(shapes))
        if len(shapes) == 1 and shape and np.prod(shape) > 2 * _FIRST:
            yield place


def _ends(sizes: Values) -> tuple[float, float]:
    """The levels of the first and of the last eighth."""
    part = max(1, len(sizes) // 8)
    return float(np.median(sizes[:part])), float(np.median(sizes[-part:]))


def _rank_correlation(sizes: Values) -> float:
    ranks = np.argsort(np.argsort(sizes, kind="stable"), kind="stable")
    return float(np.corrcoef(np.arange(len(sizes)), ranks)[0, 1])


def _onset(sizes: Values) -> int:
    """The position from which on all sizes are beyond the first ones, on the side of the last ones."""
    start = sizes[:_FIRST]
    noise = max(4 * float(np.median(np.abs(np.diff(start)))), 0.03 * float(np.median(start)))
    sign = 1 if sizes[-1] > start[0] else -1
    inside = np.flatnonzero(sign * (sizes - np.median(start)) <= noise)
    return min(int(inside[-1]) + 1, len(sizes) - 1) if len(inside) else 0
