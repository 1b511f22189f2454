"""The rule ``recurring-targets``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis.curves import fallen
from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.history import History
from stepscope.analysis.loss_inputs import Comparison, comparisons
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_VARIED = 5
_COMPARED = ("mean", "std", "norm")
Pairs = NDArray[np.intp]
"""``(n, 2)``: positions of steps that are one period apart."""


@dataclass(frozen=True)
class RecurringTargets(Rule):
    """The targets come in the same order in each epoch, and the inputs beside them do not.

    Symptom: the loss falls in the first epoch at most, and stays where chance is from then on.

    How it is measured: a number of steps is looked for after which the targets of a batch are the very same again, in
    all recorded steps that lie so far apart. If the inputs were shuffled together with them, or not at all, they come
    again as well, perhaps in another augmentation, which leaves their mean, deviation or norm much the same. So no
    correlation over these pairs of steps in any of the three means that other samples stand beside the same targets.

    Causes: inputs that are shuffled before each epoch without their targets, two loaders that are zipped, of which one
    shuffles.

    Remedy: shuffle indices, or pairs, or let one DataLoader give both.

    Source: Tobin (2019), "Troubleshooting Deep Neural Networks": data or labels incorrectly shuffled.

    Attributes:
        least: the number of pairs of steps by which it can be told from chance. Source: of ours; at random a
            correlation over 12 pairs is above ``together`` once in twenty.
        together: the correlation from which on inputs come again, too. Source: of ours; what is left of an input after
            an augmentation is most of it.
        fall: the part of its first value that the loss has lost where a net has learned from its inputs nevertheless.
    """

    name = "recurring-targets"
    causes = "Inputs are shuffled before each epoch, and their targets are not, or are by themselves."
    remedy = "Shuffle indices, or pairs, and not one of two lists; or let one DataLoader give both."
    least: int = 12
    together: float = 0.5
    fall: float = 0.5

    def check(self, view: View) -> Iterable[Finding]:
        if fallen(view) > self.fall:
            return
        for comparison in comparisons(view):
            target = comparison.target
            if target is None or view.flow.vertices[target].type != "target":
                continue
            history = view.history(target.node, role=target.role)
            pairs = self._pairs(history)
            if pairs is not None and self._are_other(view, comparison, history, pairs):
                yield self._finding(view, comparison, history, pairs)

    def _pairs(self, history: History) -> Pairs | None:
        """Steps one period apart, of the shortest period after which all targets come again."""
        rows, steps = history.identity, history.steps
        if len(np.unique(rows, axis=0)) < _VARIED or not np.isfinite(rows).all():
            return None
        again = np.flatnonzero((rows[1:] == rows[0]).all(axis=1)) + 1
        for period in (steps[again] - steps[0]).tolist():
            later = np.searchsorted(steps, steps + period)
            found = np.array([(one, two) for one, two in enumerate(later) if two < len(steps)], np.intp).reshape(-1, 2)
            found = np.compress(steps[found[:, 1]] == steps[found[:, 0]] + period, found, axis=0)
            if len(found) >= self.least and (rows[found[:, 0]] == rows[found[:, 1]]).all():
                return found
        return None

    def _are_other(self, view: View, comparison: Comparison, target: History, pairs: Pairs) -> bool:
        """Whether none of the inputs that the prediction is made of comes again with the targets."""
        places = _inputs(view, comparison)
        histories = [view.history(place.node, role=place.role) for place in places if place != comparison.target]
        same = [history for history in histories if np.array_equal(history.steps, target.steps)]
        return bool(same) and len(same) == len(places) and not any(self._recurs(history, pairs) for history in same)

    def _recurs(self, history: History, pairs: Pairs) -> bool:
        for name in _COMPARED:
            one, two = (history.of(name)[pairs[:, side]] for side in (0, 1))
            if np.array_equal(one, two) or (np.ptp(one) > 0 < np.ptp(two) and _correlation(one, two) > self.together):
                return True
        return False

    def _finding(self, view: View, comparison: Comparison, target: History, pairs: Pairs) -> Finding:
        period = int(target.steps[pairs[0, 1]] - target.steps[pairs[0, 0]])
        inputs = sorted({place.node for place in _inputs(view, comparison)})
        summary = (
            f"The targets {target.node} come again in the same order every {period} steps, and the inputs "
            f"({', '.join(inputs)}) beside them do not: one was shuffled without the other."
        )
        shown = [
            evidence(target, "mean", "comes again"),
            evidence(view.history(inputs[0]), "mean", "does not come again"),
        ]
        return self.finding(
            view, target.node, "warning", summary, shown, step=int(target.steps[0]), confidence=0.85,
            nodes=inputs,
        )  # fmt: skip


def _inputs(view: View, comparison: Comparison) -> list[Place]:
    """The inputs that a prediction is made of."""
    behind = view.flow.upstream([comparison.prediction])
    return [place for place in behind if view.flow.vertices[place].type == "input"]


def _correlation(one: NDArray[np.float64], two: NDArray[np.float64]) -> float:
    return float(np.corrcoef(one, two)[0, 1])
