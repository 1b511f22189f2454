"""The rule ``exclusive-classes``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.curves import loss_curves
from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.flow import Place
from stepscope.analysis.loss_inputs import Comparison, comparisons
from stepscope.analysis.neurons import neurons_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_LOSSES = ("binary_cross_entropy", "binary_cross_entropy_with_logits")
_MOST = 40


@dataclass(frozen=True)
class ExclusiveClasses(Rule):
    """Classes that exclude each other are judged one by one, by a binary cross-entropy.

    Symptom: the loss falls at once to a small number, as most answers are no, and stays there.

    How it is measured: each kept target of a binary cross-entropy has several columns, of which exactly one is 1, in
    all steps that are looked at. It counts if little of what a constant answer leaves (the entropy of one in that many)
    was learned: such a loss can do, but needs far longer.

    Causes: ``BCEWithLogitsLoss`` (Keras's ``binary_crossentropy``) with one-hot labels.

    Remedy: ``F.cross_entropy(scores, classes)``, by which the classes compete.

    Source: Humbatova et al. (ICSE 2020) and DeepFD list it among the wrong loss functions.

    Attributes:
        least: fewer classes are not judged: with two, both losses say the same.
        learned, well: the parts of the constant answer's loss of which less was learned: a warning, worth knowing.
    """

    name = "exclusive-classes"
    about = "loss"
    causes = "A loss for labels that may hold together, given the one-hot rows of classes of which only one does."
    remedy = "Use F.cross_entropy(scores, classes), by which the classes compete; without a sigmoid in front."
    least: int = 3
    learned: float = 0.2
    well: float = 0.5

    def check(self, view: View) -> Iterable[Finding]:
        if view.is_young:
            return
        for comparison in comparisons(view):
            shape, target = comparison.target_shape, comparison.target
            if comparison.operation not in _LOSSES or target is None or comparison.shape != shape:
                continue
            if len(shape) == 2 and shape[1] >= self.least and _excludes(view, target, shape[1]):
                yield from self._look(view, comparison, target)

    def _look(self, view: View, comparison: Comparison, target: Place) -> Iterable[Finding]:
        classes = comparison.target_shape[1]
        ends = [curve.end for curve in loss_curves(view) if curve.place == comparison.loss]
        constant = math.log(classes) / classes - (1 - 1 / classes) * math.log(1 - 1 / classes)
        left = ends[0] / constant if ends else math.inf
        if left > 10 or left < 1 - self.well:  # a sum, or well learned
            return
        level: Level = "warning" if left > 1 - self.learned else "info"
        summary = (
            f"Exactly one of the {classes} columns of {target.node} is 1: the classes exclude each other, yet the "
            f"binary cross-entropy judges each by itself. {ends[0]:.3g} is {left:.0%} of what a constant answer has."
        )
        shown = [evidence(view.history(comparison.loss.node, role=comparison.loss.role), "mean", "most answers are no")]
        yield self.finding(
            view, comparison.loss.node, level, summary, shown, step=view.began,
            nodes=[comparison.prediction.node, target.node], confidence=0.8,
        )  # fmt: skip


def _excludes(view: View, target: Place, classes: int) -> bool:
    """Whether exactly one column is 1, and all others 0, in each kept row; and not always the same."""
    steps = view.training[:: max(1, len(view.training) // _MOST)]
    kept = [neurons.samples for step in steps if (neurons := neurons_of(step, target)) is not None]
    rows = [table for table in kept if table.ndim == 2 and table.shape[1] == classes]
    if not rows:
        return False
    table = np.concatenate(rows)
    is_one_hot = bool(np.isin(table, (0, 1)).all() and (table.sum(1) == 1).all())
    return is_one_hot and len(np.unique(table.argmax(1))) > 2
