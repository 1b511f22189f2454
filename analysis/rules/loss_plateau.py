"""The rule ``loss-plateau``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.baseline import baselines
from stepscope.analysis.curves import LEAST_POINTS, Curve, loss_curves
from stepscope.analysis.finding import Finding
from stepscope.analysis.lines import sites_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class LossPlateau(Rule):
    """The loss does not fall: nothing is learned.

    Symptom: the loss curve is flat from the start.

    How it is measured: the median of the last tenth of the training steps of a kind against that of the first tenth.
    It counts if the fall is within the noise between neighbouring steps, or tiny; and if the loss is not yet better
    than the best constant answer (where the loss's formula says what that is). With several losses none is judged:
    they may work against each other.

    Causes: no gradient arrives, a learning rate that is much too low or too high, inputs that say nothing about the
    targets (shuffled apart), an output that cannot reach its targets.

    Remedy: see the other findings first; try to overfit a single batch.

    Attributes:
        fall: the part of the first level that the loss must have lost. Source: AutoTrainer's slow convergence, 0.01.
        least_steps: shorter runs are not judged.
    """

    name = "loss-plateau"
    causes = (
        "No gradient arrives, a learning rate far too low or too high, or inputs that do not belong to their targets."
    )
    remedy = "See the other findings first; then try to overfit a single batch with a higher learning rate."
    fall: float = 0.01
    least_steps: int = 50

    def check(self, view: View) -> Iterable[Finding]:
        if len(view.objectives) != 1 or _is_of_policy(view):
            return
        constants = [baseline.constant for baseline in baselines(view) if math.isfinite(baseline.constant)]
        flat = [curve for curve in loss_curves(view) if self._is_flat(curve, min(constants, default=math.nan))]
        if flat and len(flat) == sum(1 for _ in loss_curves(view)):
            yield self._finding(view, max(flat, key=len), min(constants, default=math.nan))

    def _is_flat(self, curve: Curve, constant: float) -> bool:
        if len(curve) < LEAST_POINTS or curve.steps[-1] - curve.steps[0] < self.least_steps - 1:
            return False
        fallen = curve.start - curve.end
        grown = -fallen > 0.5 * abs(curve.start)
        signs = float(np.mean(curve.values > 0))
        if 0.1 < signs < 0.9:  # a reward's estimate swings about zero, whatever is learned
            return False
        better = math.isfinite(constant) and curve.end < 0.9 * constant
        return not better and not grown and fallen < max(self.fall * abs(curve.start), 0.3 * curve.noise)

    def _finding(self, view: View, curve: Curve, constant: float) -> Finding:
        against = f"; a constant answer has {constant:.3g}" if math.isfinite(constant) else ""
        summary = (
            f"{curve.place.node} does not fall: {curve.start:.3g} in the first steps, {curve.end:.3g} in the last ones "
            f"(up to step {curve.steps[-1]}){against}."
        )
        shown = [evidence(curve.history, "mean", f"{curve.start:.3g} to {curve.end:.3g}")]
        return self.finding(view, curve.place.node, "warning", summary, shown, step=int(curve.steps[0]), confidence=0.7)


def _is_of_policy(view: View) -> bool:
    """Whether the loss is a log-probability times data: its gradient counts, its size says nothing."""
    sites = [site for kind in ("plus log", "minus log") for site in sites_of(view, kind)]
    return any("weighted" in site.operation and not site.after.isdisjoint(view.objectives) for site in sites)
