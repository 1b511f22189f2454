"""The rule ``partial-leak``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.history import Values
from stepscope.analysis.loss_inputs import Comparison, comparisons, is_floating
from stepscope.analysis.relation import gather_pairs
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_MOST, _LEAST, _DISTINCT = 60, 15, 10


@dataclass(frozen=True)
class PartialLeak(Rule):
    """In a part of the training's samples the target stands among the inputs, and in none of those evaluated.

    Symptom: the training loss is far below what the evaluation gives.

    How it is measured: of the samples that are kept, one number of an input is the very target, to the last digit, in
    a good part of the training's, and next to never in steps of another kind. Targets that take a few values only, such
    as classes, are left out.

    Causes: gaps in a series that are filled with what follows (``bfill``), windows that overlap their target, a join
    that looks ahead.

    Remedy: fill with what was known at that moment (``ffill``), and prepare all data with the same function.

    Attributes:
        share: of the training's samples. Source: of ours; numbers with all their digits are equal by chance never.
    """

    name = "partial-leak"
    about = "targets"
    causes = "Gaps that are filled with what follows (bfill), or windows that overlap what is to be predicted."
    remedy = "Fill gaps with what was known at that moment (ffill); prepare all data with the same function."
    share: float = 0.15

    def check(self, view: View) -> Iterable[Finding]:
        kinds = sorted({step.kind for step in view.steps} - view.training_kinds)
        for comparison in comparisons(view):
            if comparison.target is not None and is_floating(view, comparison.target):
                yield from self._look(view, comparison, comparison.target, kinds)

    def _look(self, view: View, comparison: Comparison, target: Place, kinds: list[str]) -> Iterable[Finding]:
        steps = view.training[:: max(1, len(view.training) // _MOST)]
        others = [step for step in view.steps if step.kind in kinds]
        behind = view.flow.upstream([comparison.prediction])
        for place in sorted(p for p in behind if view.flow.vertices[p].type == "input" and p != target):
            x, y = gather_pairs(steps, place, target)
            unseen, wanted = gather_pairs(others, place, target)
            if min(len(x), len(unseen)) < _LEAST or y.shape[1] != 1 or len(np.unique(y)) < max(_DISTINCT, len(y) / 2):
                continue
            shares, elsewhere = _equal(x, y), _equal(unseen, wanted)
            column = int(np.argmax(shares))
            if shares[column] > self.share and elsewhere[column] < shares[column] / 4:
                yield self._finding(view, target, place, column, (float(shares[column]), float(elsewhere[column])))

    def _finding(self, view: View, target: Place, place: Place, column: int, shares: tuple[float, float]) -> Finding:
        history = view.history(target.node, role=target.role)
        summary = (
            f"In {shares[0]:.0%} of the training's samples number {column} of {place.node} is the same as the target "
            f"{target.node}, to the last digit, and in {shares[1]:.0%} of those evaluated: the answer leaks in."
        )
        return self.finding(
            view, target.node, "warning", summary, [evidence(history, "mean", "stands among the inputs")],
            step=int(history.steps[0]), nodes=[place.node], confidence=0.9,
        )  # fmt: skip


def _equal(x: Values, y: Values) -> Values:
    """For each column the share of the samples in which it is the target."""
    return np.asarray((x == y).mean(axis=0), np.float64)
