"""The rule ``classes-as-numbers``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.loss_inputs import MADE, comparisons
from stepscope.analysis.neurons import neurons_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_MOST_STEPS = 40
_NOT_OF_NUMBERS = ("cross_entropy", "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "ctc_loss")


@dataclass(frozen=True)
class ClassesAsNumbers(Rule):
    """A regression whose targets look like numbers of classes.

    Symptom: the net settles between classes: unsure of 1 and 9, it says 5.

    How it is measured: the loss is none of classes, its targets are one number a sample, and all of the kept ones are
    whole numbers from 0 on, of which there are few and each occurs. Counts and grades look the same: so this is worth
    knowing only.

    Causes: a mean squared error (regression) where classes have no order.

    Remedy: one output a class, with cross_entropy.

    Attributes:
        fewest, most: how many different classes count. Source: yes or no may be a regression on purpose, as in least
            squares GANs; beyond some dozens they are rather counts.
        least: fewer kept targets are not judged.
    """

    name = "classes-as-numbers"
    about = "loss"
    causes = "A regression loss (mse_loss, l1_loss) on the numbers of classes, which have no order."
    remedy = "Give the net one output for each class, and use cross_entropy; unless they are grades or counts."
    fewest: int = 3
    most: int = 40
    least: int = 100

    def check(self, view: View) -> Iterable[Finding]:
        for comparison in comparisons(view):
            target = comparison.target
            if (
                target is None
                or comparison.operation in _NOT_OF_NUMBERS
                or view.flow.vertices[target].operation in MADE
            ):
                continue
            one_each = bool(comparison.target_shape) and comparison.target_shape[0] == int(
                np.prod(comparison.target_shape)
            )
            classes = self._classes(view, target) if one_each else 0
            if classes:
                summary = (
                    f"The loss is that of a regression, but {target.node} looks like the numbers of {classes} classes: "
                    f"whole numbers from 0 to {classes - 1}, which may have no order."
                )
                shown = [evidence(view.history(target.node, role=target.role), "max", "the largest")]
                yield self.finding(
                    view, target.node, "info", summary, shown, step=view.began,
                    nodes=[comparison.loss.node, comparison.prediction.node], confidence=0.6,
                )  # fmt: skip

    def _classes(self, view: View, target: Place) -> int:
        """How many classes there are; 0 if these are no classes."""
        steps = view.training[:: max(1, len(view.training) // _MOST_STEPS)]
        kept = [neurons_of(step, target) for step in steps]
        values = np.concatenate([np.empty(0), *(part.samples.ravel() for part in kept if part is not None)])
        if len(values) < self.least or not np.array_equal(values, np.round(values)):
            return 0
        found = np.unique(values)
        is_range = np.array_equal(found, np.arange(len(found)))
        return len(found) if is_range and self.fewest <= len(found) <= self.most else 0
