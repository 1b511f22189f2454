"""The rule ``loss-divergence``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.curves import LEAST_POINTS, Curve, loss_curves, running_median
from stepscope.analysis.finding import Finding
from stepscope.analysis.moving import has_moving_targets, is_of_policy
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class LossDivergence(Rule):
    """The loss grows and does not come back.

    Symptom: after a good start, or at once, the loss rises for the rest of the run.

    How it is measured: the median of the last tenth of the training steps of a kind against the lowest running median
    and against the first tenth. Several losses that work against each other (a GAN), that of a policy, and one whose
    targets move with the net (a target network) may grow more before it counts. A loss that begins on both sides of
    zero (that of a policy) is measured by the size of its first fifth.

    Causes: a learning rate that is too high, a loss with the wrong sign, gradients that are never set to zero,
    weights or activations that grow without limit.

    Remedy: lower the learning rate by ten, clip gradients, check that what is minimised should be small.

    Attributes:
        factor: how many times the start, and the best level, the end must be. Source: half of the 10 times that
            trainscope and neuraldbg use, held against medians instead of single steps.
        adversarial_factor: the same for these.
        noises: how many times the noise between neighbouring steps the rise must be.
        burst: how many times its start a loss must become that was infinite before it had enough steps to be judged.
    """

    name = "loss-divergence"
    causes = "A learning rate that is too high, a loss with the wrong sign, or gradients that are never set to zero."
    remedy = "Lower the learning rate by ten; clip gradients; check the sign of the loss and that zero_grad is called."
    factor: float = 2.0
    adversarial_factor: float = 20.0
    noises: float = 4.0
    burst: float = 100.0

    def check(self, view: View) -> Iterable[Finding]:
        worst: dict[str, tuple[float, Curve]] = {}
        is_loose = len(view.objectives) > 1 or is_of_policy(view) or has_moving_targets(view)
        for curve in loss_curves(view):
            rise = self._burst(curve) if view.broken else 0.0
            rise = rise or self._rise(curve, is_loose=is_loose)
            if rise > worst.get(curve.place.node, (0.0, curve))[0]:
                worst[curve.place.node] = (rise, curve)
        for rise, curve in worst.values():
            yield self._finding(view, curve, rise)

    def _burst(self, curve: Curve) -> float:
        """How many times the start a loss has become that grew, ever further, until it was no number any more."""
        if not 3 <= len(curve) < LEAST_POINTS or not curve.values[0] > 0:
            return 0.0
        grown = float(curve.values[-1] / curve.values[0])
        return grown if grown > self.burst and bool(np.all(np.diff(curve.values)[-2:] > 0)) else 0.0

    def _rise(self, curve: Curve, *, is_loose: bool) -> float:
        """How many times the start the loss has become; 0 if that does not count."""
        if len(curve) < LEAST_POINTS:
            return 0.0
        factor = self.adversarial_factor if is_loose else self.factor
        start, best = curve.low_start, min(curve.best[1], curve.low_start)
        early = curve.values[: max(3, len(curve) // 5)]
        is_about_zero = bool(early.min() < 0 < early.max())
        level = max(float(np.abs(early).max()) if is_about_zero else abs(start), 1e-12)
        high = curve.end - start > (factor - 1) * level and curve.end - best > self.noises * curve.usual_noise
        return (curve.end - start) / level + 1 if high else 0.0

    def _finding(self, view: View, curve: Curve, rise: float) -> Finding:
        onset = _onset(curve)
        summary = (
            f"{curve.place.node} diverges: from {curve.low_start:.3g} at the start to {curve.end:.3g} at the end, "
            f"rising from step {onset} on and not coming back."
        )
        shown = [evidence(curve.history, "mean", f"{curve.low_start:.3g} to {curve.end:.3g}")]
        return self.finding(
            view, curve.place.node, "error", summary, shown, step=onset, confidence=min(0.95, 0.6 + 0.05 * rise)
        )


def _onset(curve: Curve) -> int:
    """The step after which the running median stays above the middle between the best level and the end."""
    smooth = running_median(curve.values, 3)
    low = smooth <= (curve.best[1] + curve.end) / 2
    last_low = int(np.flatnonzero(low)[-1]) if low.any() else 0
    return int(curve.steps[min(last_low + 1, len(curve) - 1)])
