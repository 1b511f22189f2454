"""The rule ``loss-plateau``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.baseline import baselines
from stepscope.analysis.curves import LEAST_POINTS, Curve, loss_curves
from stepscope.analysis.finding import Finding
from stepscope.analysis.moving import has_moving_targets, is_of_policy
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class LossPlateau(Rule):
    """The loss does not fall: nothing is learned.

    Symptom: the loss curve is flat from the start.

    How it is measured: the median of the last tenth of the training steps of a kind against that of the first tenth.
    It counts if the fall is within the noise between neighbouring steps, or tiny; and if the loss is not yet better
    than the best constant answer (where the loss's formula says what that is). A loss that was well below its start for
    a while has learned, and something was changed since (see ``loss-jump``). With several losses none is judged: they
    may work against each other; nor is that of a policy, or one whose targets move with the net (a target network).

    Causes: no gradient arrives, a learning rate that is much too low or too high, inputs that say nothing about the
    targets (shuffled apart), an output that cannot reach its targets.

    Remedy: see the other findings first; try to overfit a single batch.

    Attributes:
        fall: the part of the first level that the loss must have lost. Source: AutoTrainer's slow convergence, 0.01.
        dip: the part of the first level below which its running median shows that something was learned. Source: of
            ours; chance does not halve a median.
        least_steps, least_samples: shorter runs, and those that have seen fewer samples, are not judged. Source: of
            ours; in batches of one, nets that learn take some hundred steps to show it.
    """

    name = "loss-plateau"
    causes = (
        "No gradient arrives, a learning rate far too low or too high, or inputs that do not belong to their targets."
    )
    remedy = "See the other findings first; then try to overfit a single batch with a higher learning rate."
    fall: float = 0.01
    dip: float = 0.5
    least_steps: int = 50
    least_samples: int = 500

    def check(self, view: View) -> Iterable[Finding]:
        if len(view.objectives) != 1 or is_of_policy(view) or has_moving_targets(view):
            return
        constants = [baseline.constant for baseline in baselines(view) if math.isfinite(baseline.constant)]
        flat = [curve for curve in loss_curves(view) if self._is_flat(view, curve, min(constants, default=math.nan))]
        if flat and len(flat) == sum(1 for _ in loss_curves(view)):
            yield self._finding(view, max(flat, key=len), min(constants, default=math.nan))

    def _is_flat(self, view: View, curve: Curve, constant: float) -> bool:
        if (
            len(curve) < LEAST_POINTS
            or _seen(view, curve) < self.least_samples
            or curve.steps[-1] - curve.steps[0] < self.least_steps - 1
        ):
            return False
        fallen = curve.start - curve.end
        grown = -fallen > 0.5 * abs(curve.start)
        signs = float(np.mean(curve.values > 0))
        if 0.1 < signs < 0.9:  # a reward's estimate swings about zero, whatever is learned
            return False
        if curve.start > 0 and curve.best[1] < self.dip * curve.start:
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


def _seen(view: View, curve: Curve) -> float:
    """How many samples went by between the first and the last point of a curve; infinite if unknown."""
    shapes = [view.shape(place, view.training[-1]) for place in view.flow.of_type("input")]
    sizes = [shape[0] for shape in shapes if shape]
    return max(sizes, default=math.inf) * float(curve.steps[-1] - curve.steps[0] + 1)
