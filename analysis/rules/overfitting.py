"""The rule ``overfitting``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.curves import LEAST_POINTS, loss_curves, running_median
from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.history import Values
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class Overfitting(Rule):
    """The loss of an evaluating kind of step rises again while that of the training falls.

    Symptom: training looks better and better, validation worse and worse.

    How it is measured: kinds of steps without gradients that have the same loss node. The last value of their smoothed
    loss is compared with its best, and with the training's at the end. A constant gap alone is no finding: kinds may
    differ in difficulty.

    Causes: too many parameters for the data, too little regularisation, training for too long; validation data that
    differ from the training's.

    Remedy: stop at the best step, add data or augmentation, weight decay or dropout, or use a smaller net.

    Attributes:
        rise: the part by which the loss must be above its best. Source: SageMaker's Overfit, 0.1, doubled for noise.
        gap: times the training loss.
    """

    name = "overfitting"
    causes = "A net that is large for its data, too little regularisation, or training that went on for too long."
    remedy = "Stop at the best step; add data, augmentation, weight decay or dropout; or use a smaller net."
    rise: float = 0.2
    gap: float = 1.5

    def check(self, view: View) -> Iterable[Finding]:
        evaluating = {step.number: step.kind for step in view.steps}
        for step in view.training:
            evaluating.pop(step.number, None)
        training = {curve.place: curve for curve in loss_curves(view) if len(curve) >= LEAST_POINTS}
        for place, curve in training.items():
            for kind in dict.fromkeys(evaluating.values()):
                yield from self._compare(view, place, kind, evaluating, curve.start, curve.end)

    def _compare(
        self, view: View, place: Place, kind: str, kinds: dict[int, str], start: float, end: float
    ) -> Iterable[Finding]:
        history = view.history(place.node, role=place.role, training=False)
        mine = np.array([kinds.get(number) == kind for number in history.steps.tolist()], bool)
        values, steps = history.of("mean")[mine], history.steps[mine]
        good = np.isfinite(values)
        values, steps = values[good], steps[good]
        if len(values) < 5 or end >= start or end <= 0:
            return
        smooth: Values = running_median(values, 3)
        best, last = int(np.argmin(smooth)), float(smooth[-1])
        if last < (1 + self.rise) * smooth[best] or last < self.gap * end or best >= len(smooth) - 2:
            return
        summary = (
            f"{place.node} of kind {kind!r} rises from {smooth[best]:.3g} at step {steps[best]} to {last:.3g}, while "
            f"the training's falls from {start:.3g} to {end:.3g}."
        )
        shown = [evidence(history, "mean", f"{smooth[best]:.3g} to {last:.3g} for {kind!r}")]
        yield self.finding(view, place.node, "warning", summary, shown, step=int(steps[best]), confidence=0.8)
