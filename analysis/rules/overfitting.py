"""The rule ``overfitting``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.baseline import baselines
from stepscope.analysis.batch_size import inputs_with_batch, samples_of
from stepscope.analysis.curves import LEAST_POINTS, Curve, loss_curves, running_median
from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.history import History, Values
from stepscope.analysis.rule import Rule
from stepscope.analysis.sample_count import count_samples
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class Overfitting(Rule):
    """The loss of an evaluating kind of step rises again while that of the training falls.

    Symptom: training looks better and better, validation worse and worse.

    How it is measured: kinds of steps without gradients that have the same loss node. The last value of their smoothed
    loss is compared with its best, and with the training's at the end. A constant gap alone is no finding: kinds may
    differ in difficulty. Where the loss's formula tells what a constant answer has, it also counts if evaluation is
    worse than that twice in a row at the end, and does not fall any more, while training is far better. Where training
    is almost perfect by it, and evaluation far from that, the data are known by heart, which is worth knowing.

    Causes: too many parameters for the data, too little regularisation, training for too long; validation data that
    differ from the training's.

    Remedy: stop at the best step, add data or augmentation, weight decay or dropout, or use a smaller net.

    Attributes:
        rise: the part by which the loss must be above its best. Source: SageMaker's Overfit, 0.1, doubled for noise.
        gap: times the training loss.
        usual: the part of the training's own losses, in its last third, that stay below a rise that is no more than the
            noise of its batches. Source: of ours.
        slight: the part of a constant answer's loss (where that is unknown, of the first loss) by which it must rise,
            else it is worth knowing only: what is close to zero may double. Source: of ours.
        by_heart, unlike: the parts of a constant answer's loss below and above which training and evaluation lie where
            the data are known by heart, which is worth knowing. Source: of ours.
        far_better, short, often: the part of evaluation's loss that training has left, the part of a constant answer's
            that evaluation has left, and how often each sample was shown, where there are too few of them: worth
            knowing. Source: of ours.
        very_often: shown so often, twice ``far_better`` is enough. Source: of ours.
        known: the part of a constant answer's loss that shows that the training data is known. Source: of ours.
    """

    name = "overfitting"
    causes = "A net that is large for its data, too little regularisation, or training that went on for too long."
    remedy = "Stop at the best step; add data, augmentation, weight decay or dropout; or use a smaller net."
    rise: float = 0.2
    gap: float = 1.5
    usual: float = 0.95
    slight: float = 0.05
    by_heart: float = 1e-3
    unlike: float = 0.25
    known: float = 0.5
    far_better: float = 0.1
    short: float = 0.15
    often: float = 30.0
    very_often: float = 100.0

    def check(self, view: View) -> Iterable[Finding]:
        evaluating = [kind for kind in view.trial.kinds if kind not in view.training_kinds]
        training = {curve.place: curve for curve in loss_curves(view) if len(curve) >= LEAST_POINTS}
        for curve in training.values():
            for kind in evaluating:
                yield from self._compare(view, curve, kind)

    def _compare(self, view: View, curve: Curve, kind: str) -> Iterable[Finding]:
        place, start, end = curve.place, curve.start, curve.end
        history = view.history(place.node, role=place.role, training=False)
        steps, values = view.trial.series(place.node, role=place.role, statistic="mean", kind=kind)
        good = np.isfinite(values)
        values, steps = values[good], steps[good]
        if len(values) < 2 or end >= start or end <= 0:
            return
        constant = min((b.constant for b in baselines(view, set(steps.tolist())) if b.loss == place), default=math.nan)
        still_falls = values[-1] < values[-2] / (1 + self.rise)
        if min(values[-2:]) > constant and end < self.known * constant and not still_falls:
            yield self._worse_than_nothing(view, history, kind, int(steps[-2]), float(values[-1]), end, constant)
            return
        if len(values) < 5:
            return
        if end < self.by_heart * constant and min(values[-3:]) > self.unlike * constant and not still_falls:
            yield self._by_heart(view, history, kind, int(steps[-1]), float(values[-1]), end, constant)
            return
        late = min(values[-3:])
        if end < 2 * self.far_better * late and late > self.short * constant and not still_falls:
            samples = count_samples(view, place)
            times = _shown(view) / samples if samples else 0.0
            if times > self.often and (end < self.far_better * late or times > self.very_often):
                yield self._few(view, history, kind, float(values[-1]), end, samples, times)
                return
        smooth: Values = running_median(values, 3)
        best, last = int(np.argmin(smooth)), float(smooth[-1])
        if last < (1 + self.rise) * smooth[best] or last < self.gap * end or best >= len(smooth) - 2:
            return
        if last <= np.quantile(curve.values[2 * len(curve) // 3 :], self.usual):
            return
        summary = (
            f"{place.node} of kind {kind!r} rises from {smooth[best]:.3g} at step {steps[best]} to {last:.3g}, while "
            f"the training's falls from {start:.3g} to {end:.3g}."
        )
        shown = [evidence(history, "mean", f"{smooth[best]:.3g} to {last:.3g} for {kind!r}", kind)]
        whole = constant if math.isfinite(constant) else start
        level: Level = "info" if last - smooth[best] < self.slight * whole else "warning"
        yield self.finding(view, place.node, level, summary, shown, step=int(steps[best]), confidence=0.8)

    def _few(
        self, view: View, history: History, kind: str, last: float, end: float, samples: float, times: float
    ) -> Finding:
        summary = (
            f"There seem to be about {samples:.2g} different training samples only, each of which was shown "
            f"{times:.0f} times: they are known by heart. {history.node} is {end:.2g} for them, and {last:.3g} for "
            f"{kind!r}, where it falls no more: too little data for the net (overfitting)."
        )
        shown = [evidence(history, "mean", f"{last:.3g} for {kind!r}, {end:.2g} in training", kind)]
        inputs = [place.node for place in view.flow.of_type("input")]
        return self.finding(
            view, history.node, "info", summary, shown, step=view.began, nodes=list(dict.fromkeys(inputs)),
            confidence=0.6,
        )  # fmt: skip

    def _by_heart(
        self, view: View, history: History, kind: str, step: int, last: float, end: float, constant: float
    ) -> Finding:
        summary = (
            f"The training data are known by heart: {history.node} is {end:.2g} there, and {last:.3g} for {kind!r}, of "
            f"the {constant:.3g} of a constant answer. The net may be too large (too complex) for its data."
        )
        shown = [evidence(history, "mean", f"{last:.3g} for {kind!r}, {end:.2g} in training", kind)]
        return self.finding(view, history.node, "info", summary, shown, step=step, confidence=0.5)

    def _worse_than_nothing(
        self, view: View, history: History, kind: str, step: int, last: float, end: float, constant: float
    ) -> Finding:
        summary = (
            f"{history.node} of kind {kind!r} is {last:.3g}, worse than the {constant:.3g} of a constant answer, while "
            f"the training's is {end:.3g}: what was learned holds for the training data only."
        )
        shown = [evidence(history, "mean", f"{last:.3g} for {kind!r}, {end:.3g} in training", kind)]
        return self.finding(view, history.node, "warning", summary, shown, step=step, confidence=0.8)


def _shown(view: View) -> float:
    """How many samples the steps of the training had, the unrecorded ones too."""
    sizes = [samples_of(view, node) for node in inputs_with_batch(view)]
    return max(sizes, default=0) * float(view.training[-1].number - view.began + 1)
