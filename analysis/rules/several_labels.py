"""The rule ``several-labels``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.bounds import maker
from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.flow import Place
from stepscope.analysis.history import History
from stepscope.analysis.loss_inputs import Comparison, comparisons
from stepscope.analysis.robust import largest, smallest
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_OF_DISTRIBUTIONS = frozenset(["cross_entropy", "kl_div"])
_OF_YES_OR_NO = frozenset(["binary_cross_entropy", "binary_cross_entropy_with_logits", "multilabel_soft_margin_loss"])


@dataclass(frozen=True)
class SeveralLabels(Rule):
    """A loss that shares one among the classes is given targets of several classes, or none: not a distribution.

    Symptom: the loss starts far above log(classes) and has a high floor; the more labels a sample has, the less sure
    the net is of each; samples without a label teach nothing.

    How it is measured: cross_entropy or kl_div (or code of one's own behind a softmax) compares scores with targets of
    the same shape, and these do not add up to one in each sample. If all are zeros and ones, they are labels of several
    classes. Other targets are worth knowing only, and so are square ones (who belongs to whom, in a batch). Targets
    with one number a sample at most, labels times a weight say, are right.

    Causes: cross_entropy where samples may have several labels; soft labels, ratings or percentages that were not
    normalised; probabilities of a sigmoid as the targets of a student.

    Remedy: binary_cross_entropy_with_logits, one yes or no a class; or divide the targets by their sum.

    Attributes:
        tolerance: of the sum, relative. Source: rounding of float16 labels, with room.
    """

    name = "several-labels"
    about = "loss"
    causes = "cross_entropy where a sample may have several labels, or soft targets that were not normalised."
    remedy = "Use binary_cross_entropy_with_logits, one yes or no a class; or divide the targets by their sum."
    tolerance: float = 0.02

    def check(self, view: View) -> Iterable[Finding]:
        seen: set[Place] = set()
        for comparison in comparisons(view):
            target = comparison.target
            if target is None or target in seen or not _shares_one(view, comparison):
                continue
            seen.add(target)
            history = view.history(target.node, role=target.role)
            classes = comparison.shape[1]
            if len(history) and smallest(history.of("min")) >= 0 and not self._adds_up(history, classes):
                yield self._finding(view, comparison, history)

    def _adds_up(self, history: History, classes: int) -> bool:
        """Whether the targets of a sample add up to one, or are but one number."""
        means, spread = (history.over_batch("mean", name) * classes for name in ("batch_mean", "batch_std"))
        if largest(np.abs(means - 1)) < self.tolerance and largest(spread) < self.tolerance:
            return True
        single = history.over_batch("abs_max", "batch_mean")
        return bool(np.all(np.abs(means - single) <= self.tolerance * single)) or largest(means) < 1 - self.tolerance

    def _finding(self, view: View, comparison: Comparison, history: History) -> Finding:
        assert comparison.target is not None
        classes, sums = comparison.shape[1], history.over_batch("mean", "batch_mean") * comparison.shape[1]
        is_binary = _is_binary(history)
        what = "are multi-hot, several labels a sample or none:" if is_binary else "are not a distribution:"
        summary = (
            f"The targets {comparison.target.node} {comparison.target_shape} {what} they sum to {np.median(sums):.3g} "
            f"over the {classes} classes, but {comparison.operation} ({comparison.loss.node}) shares one among them."
        )
        is_square = comparison.shape[0] == classes
        level: Level = "warning" if is_binary and not is_square else "info"
        shown = [evidence(history, "mean", f"1 / {classes} in each sample would be a distribution")]
        return self.finding(
            view, comparison.loss.node, level, summary, shown, step=int(history.steps[0]), confidence=0.95,
            nodes=[comparison.target.node, comparison.prediction.node],
        )  # fmt: skip


def _shares_one(view: View, comparison: Comparison) -> bool:
    """Whether a loss compares a distribution over the second dimension with a target of the same shape."""
    if len(comparison.shape) < 2 or comparison.shape != comparison.target_shape or comparison.shape[1] < 2:
        return False
    if comparison.operation in _OF_DISTRIBUTIONS:
        return True
    made_by = view.flow.vertices[maker(view, comparison.prediction)].operation
    return made_by == "log_softmax" and comparison.operation not in _OF_YES_OR_NO and len(comparison.shape) == 2


def _is_binary(history: History) -> bool:
    """Whether all numbers are zero or one: then they are their own squares."""
    mean, spread = history.of("mean"), history.of("std")
    return bool(largest(history.of("max")) == 1 and np.allclose(spread**2 + mean**2, mean, rtol=1e-3))
