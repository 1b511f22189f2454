"""The rule ``target-scale``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.history import Values
from stepscope.analysis.layers import rms
from stepscope.analysis.loss_inputs import Comparison, comparisons, is_floating
from stepscope.analysis.robust import median
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_LEAST = 10
_LOSSES = frozenset(["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"])


@dataclass(frozen=True)
class TargetScale(Rule):
    """Regression targets that are far larger than what the net puts out.

    Symptom: a huge loss that falls slowly while the output grows towards the targets; gradients that need clipping.

    How it is measured: the root mean square of the targets, and that of the predictions at the end of the training.
    It counts if the targets are large and the predictions have not got there in 50 steps or more. Or some targets
    are one number that comes again and again, exactly, far beyond all others: it stands for a missing one. Or they
    lie far from 0, all on one side, and the predictions need a good part of the steps to get there.

    Causes: prices, counts or coordinates in their own units.

    Remedy: standardise the targets (subtract the mean, divide by the standard deviation) and undo it afterwards.

    Attributes:
        large: the size of targets from which on it can count. Source: an untrained net puts out about 1; ten times that
            is still reached in some hundred steps of Adam.
        reached: the part of the targets' size that the predictions must have reached.
        beyond, often: times the largest of all other numbers that a mark for missing ones must have, and in what part
            of the steps it must come. Source: of ours; a single outlier comes once an epoch.
        off, least, way: how many standard deviations from 0 the targets lie, how far at least, and the part of the
            steps until the predictions have come within one. Source: of ours; Karpathy's recipe (2019) has a mean of 50
            as an example. It is worth knowing only.
        far: of a training that ends in NaN or infinity: how many times the first predictions the targets are.
        left: the part of the first loss that is there at the end of a training whose targets are that far off, and
            five times ``large``: worth knowing. Source: of ours.
    """

    name = "target-scale"
    causes = "Prices, counts or coordinates in their own units as targets."
    remedy = "Standardise the targets (subtract the mean, divide by the standard deviation); undo it on the output."
    large: float = 20.0
    reached: float = 0.5
    far: float = 100.0
    left: float = 0.15
    beyond: float = 4.0
    often: float = 0.3
    off: float = 4.0
    least: float = 5.0
    way: float = 0.25

    def check(self, view: View) -> Iterable[Finding]:
        found = list(self._sentinels(view)) or list(self._of_the_wrong_size(view))
        yield from found or self._off_centre(view)

    def _of_the_wrong_size(self, view: View) -> Iterable[Finding]:
        for comparison in [] if view.is_young and not view.broken else comparisons(view):
            if comparison.target is None or comparison.operation not in _LOSSES:
                continue
            if math.prod(comparison.shape) != math.prod(comparison.target_shape):
                continue
            target, prediction, loss = (
                view.history(place.node, role=place.role)
                for place in (comparison.target, comparison.prediction, comparison.loss)
            )
            if len(target) < (1 if view.broken else 3) or len(target) != len(prediction) or len(loss) != len(target):
                continue
            if view.broken and self._blows_up(rms(target)[0], rms(prediction)[0], loss.of("mean")[0]):
                yield self._finding(view, comparison, float(rms(target)[0]), float(rms(prediction)[0]), 0)
                continue
            wanted, given = median(rms(target)), float(rms(prediction)[-1])
            if wanted > self.large and given < self.reached * wanted and _is_compared(loss.of("mean"), wanted, given):
                yield self._finding(view, comparison, wanted, given)
            elif self._is_on_its_way(wanted, float(rms(prediction)[0]), loss.of("mean")):
                yield replace(self._finding(view, comparison, wanted, given), level="info", confidence=0.6)

    def _is_on_its_way(self, wanted: float, first: float, losses: Values) -> bool:
        """Whether targets are huge beside what an untrained net puts out, and much of the loss is left."""
        end = median(losses[-max(3, len(losses) // 10) :])
        return self.large * 5 < wanted < math.inf and first < wanted / self.far and end > self.left * losses[0]

    def _sentinels(self, view: View) -> Iterable[Finding]:
        """One number that comes again and again among the targets, far beyond all others."""
        for place in view.flow.of_type("target"):
            history = view.history(place.node, role=place.role)
            peaks = history.of("abs_max")
            peaks, steps = peaks[np.isfinite(peaks)], history.steps[np.isfinite(peaks)]
            if not len(peaks) or not is_floating(view, place):
                continue
            is_mark = peaks == peaks.max()
            others = peaks[~is_mark]
            if is_mark.mean() < self.often or not np.any(others) or peaks.max() < self.beyond * others.max():
                continue
            summary = (
                f"Some of the targets {place.node} look like a sentinel, not like data: the same number of size "
                f"{peaks.max():.6g} comes in {is_mark.sum()} of {len(peaks)} steps, {peaks.max() / others.max():.3g} "
                f"times as large as all others in the rest of them. Such outliers rule the loss."
            )
            yield self.finding(
                view, place.node, "warning", summary, [evidence(history, "abs_max", "the same outlier in many steps")],
                step=int(steps[is_mark][0]), confidence=0.85,
                causes="A number that stands for a missing measurement (999.9, -1) was taken for a value.",
                remedy="Leave these samples out, or mask them in the loss.",
            )  # fmt: skip

    def _off_centre(self, view: View) -> Iterable[Finding]:
        """Targets far from 0 on one side, which the net spends its steps on getting to."""
        for comparison in [] if view.is_young else comparisons(view):
            if comparison.target is None or comparison.operation not in _LOSSES:
                continue
            if view.flow.vertices[comparison.target].operation:
                continue  # made in the step, as those of a target network are
            target, given = (
                view.history(place.node, role=place.role) for place in (comparison.target, comparison.prediction)
            )
            if len(target) < _LEAST or not np.array_equal(target.steps, given.steps):
                continue
            centre, spread = median(target.of("mean")), median(target.of("std"))
            distances = np.abs(given.of("mean") - centre)
            on_its_way = float(np.mean(np.minimum.accumulate(distances) > spread))
            if (
                abs(centre) > max(self.least, self.off * spread)
                and distances[0] > 0.8 * abs(centre)
                and on_its_way > self.way
            ):
                summary = (
                    f"The targets {comparison.target.node} lie around {centre:.3g} (standard deviation {spread:.2g}), "
                    f"and {comparison.prediction.node} begins around {given.of('mean')[0]:.2g}: it takes "
                    f"{on_its_way:.0%} of the steps to get to the mean of the targets, before anything else is learned."
                )
                shown = [evidence(given, "mean", "on its way"), evidence(target, "mean", "the mean of the targets")]
                yield self.finding(
                    view, comparison.target.node, "info", summary, shown, step=int(target.steps[0]), confidence=0.7,
                    nodes=[comparison.prediction.node],
                    causes="The last bias begins at 0, as it does by default, and the targets are not centred.",
                    remedy="Subtract the mean of the targets, or begin there: nn.init.constant_(last.bias, mean).",
                )  # fmt: skip

    def _blows_up(self, wanted: float, given: float, loss: float) -> bool:
        """Whether targets were so far off at the first step that their gradients threw the net into infinity."""
        return self.large * self.large < wanted < math.inf and given < wanted / self.far and loss >= 0.2 * wanted

    def _finding(self, view: View, comparison: Comparison, wanted: float, given: float, position: int = -1) -> Finding:
        assert comparison.target is not None
        target = view.history(comparison.target.node, role=comparison.target.role)
        prediction = view.history(comparison.prediction.node, role=comparison.prediction.role)
        summary = (
            f"The targets {comparison.target.node} have a size of {wanted:.3g} (root mean square); the predictions "
            f"{comparison.prediction.node} have reached {given:.3g} at step {prediction.steps[position]}."
        )
        shown = [evidence(target, "norm", "the targets"), evidence(prediction, "norm", "the predictions")]
        return self.finding(
            view, comparison.target.node, "warning", summary, shown,
            step=int(target.steps[0]), nodes=[comparison.prediction.node], confidence=0.75,
        )  # fmt: skip


def _is_compared(loss: np.ndarray[tuple[int], np.dtype[np.float64]], wanted: float, given: float) -> bool:
    """Whether the last loss is as large as these sizes make it; else the targets are scaled on their way to it."""
    return bool(loss[-1] >= 0.2 * (wanted - given))
