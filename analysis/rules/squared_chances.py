"""The rule ``squared-chances``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.bounds import maker, operation_of
from stepscope.analysis.curves import fallen
from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.loss_inputs import Comparison, comparisons
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_LOSSES = {"mse_loss": "squared error", "l1_loss": "absolute error", "smooth_l1_loss": "absolute error"}
_CHANCES = ("softmax", "sigmoid")
_WHOLE = 1e-3


@dataclass(frozen=True)
class SquaredChances(Rule):
    """Probabilities are compared with classes by a squared or absolute error.

    Symptom: a classifier learns slowly, or settles on the largest class.

    How it is measured: a squared or absolute error gets what a softmax or sigmoid has made, and targets that are zeros
    and ones: their variance is that of such numbers, ``m (1 - m)``. It is a warning where the loss hardly falls.

    Causes: a loss that was taken over from a regression.

    Remedy: cross_entropy on the raw scores, or binary_cross_entropy_with_logits.

    Attributes:
        fall: the part of the first loss that should be gone. Source: of ours. The gradient of a squared error has the
            slope of the softmax in it, which is zero where it is sure of the wrong class; that of the cross-entropy
            has not (Bishop 2006, section 4.3.6).
    """

    name = "squared-chances"
    about = "loss"
    causes = "A loss that was taken over from a regression."
    remedy = "Use cross_entropy on the raw scores, or binary_cross_entropy_with_logits."
    fall: float = 0.2

    def check(self, view: View) -> Iterable[Finding]:
        for comparison in comparisons(view):
            if comparison.operation not in _LOSSES or comparison.target is None:
                continue
            made_by = operation_of(view, maker(view, comparison.prediction))
            if made_by in _CHANCES and _are_classes(view, comparison):
                yield self._finding(view, comparison, made_by)

    def _finding(self, view: View, comparison: Comparison, made_by: str) -> Finding:
        node = comparison.prediction.node
        level: Level = "warning" if fallen(view) < self.fall else "info"
        summary = (
            f"{node} are probabilities ({made_by}), compared with zeros and ones by the "
            f"{_LOSSES[comparison.operation]}: its gradient vanishes where the answer is surely wrong, "
            f"that of cross-entropy does not."
        )
        shown = [evidence(view.history(comparison.loss.node, role=comparison.loss.role), "mean", "the loss")]
        return self.finding(
            view, node, level, summary, shown,
            step=view.began, nodes=[comparison.loss.node], confidence=0.6,
        )  # fmt: skip


def _are_classes(view: View, comparison: Comparison) -> bool:
    """Whether the targets are zeros and ones, and both occur."""
    assert comparison.target is not None
    history = view.history(comparison.target.node, role=comparison.target.role)
    mean, std = history.of("mean"), history.of("std")
    bounds = np.all((history.of("min") == 0) & (history.of("max") == 1))
    return len(history) > 0 and bool(bounds) and bool(np.all(np.abs(std**2 - mean * (1 - mean)) < _WHOLE))
