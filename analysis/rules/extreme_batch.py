"""The rule ``extreme-batch``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.critics import plays
from stepscope.analysis.curves import Curve, loss_curves
from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.flow import Place
from stepscope.analysis.lines import sites_of
from stepscope.analysis.loss_inputs import comparisons
from stepscope.analysis.robust import deviation
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_LEAST = 10
_MOST_SHARE = 0.1


@dataclass(frozen=True)
class ExtremeBatch(Rule):
    """Single batches whose inputs or targets are far larger than those of all others.

    Symptom: the loss and the gradients jump in one step, and what was learned is gone.

    How it is measured: the largest absolute value of each input and target that feeds a loss, in each step against the
    median of the steps and its median absolute deviation. At most a tenth of the steps may be so: a variable that is
    extreme now and then by its nature has a wide deviation, and is left alone. Where no loss jumps in that step, nor is
    larger from then on, it is worth knowing only.

    Or a loss is a sum over its targets (``reduction="sum"``), weighs the same in all steps, and at most a tenth of the
    steps have several times as many targets as usual: these take steps as many times as long.

    Causes: a broken file, a unit that was mixed up, a sample that was never normalised, a placeholder such as -9999.

    Remedy: look at the batch of that step; check the range of the data where it is loaded.

    Attributes:
        factor: times the median. Source: gradglass's 5 for losses, four times over, since targets have long tails.
        deviations: times the median absolute deviation (1.4826 MAD). Source: ten times the usual 3.
        felt: by how many median absolute deviations (1.4826 MAD) a loss must differ from its median there. Source: of
            ours; sound nets take such a batch now and then.
        longer: how many times the usual number of targets. Source: of ours; the last batch of an epoch is smaller.
    """

    name = "extreme-batch"
    causes = "A broken file, a unit that was mixed up, a sample that was not normalised, a placeholder such as -9999."
    remedy = "Look at the batch of that step; check the range of the data where it is loaded."
    factor: float = 20.0
    deviations: float = 30.0
    longer: float = 3.0
    felt: float = 5.0

    def check(self, view: View) -> Iterable[Finding]:
        used = view.flow.upstream(view.losses)
        for place in view.flow.of_type("input", *([] if plays(view) else ["target"])):
            if place in used:
                yield from self._check(view, place)
        summed = {place for site in sites_of(view, "summed") for place in site.after}
        for comparison in comparisons(view):
            if comparison.loss in summed and comparison.target is not None:
                yield from self._longer(view, comparison.loss, comparison.target)

    def _longer(self, view: View, loss: Place, target: Place) -> Iterable[Finding]:
        """Sums over far more targets than usual."""
        shapes = [view.shape(target, step) or () for step in view.training]
        counts, weights = np.array([math.prod(shape) for shape in shapes]), view.history(loss.node, "gradient")
        usual = max(float(np.median(counts)), 1.0) if len(counts) >= _LEAST else np.inf
        long = np.flatnonzero(counts > self.longer * usual)
        is_even = len(weights) > 0 and bool(np.ptp(weights.of("mean")) <= 0.5 * np.abs(weights.of("mean")).max())
        if not 0 < len(long) <= _MOST_SHARE * len(counts) or not is_even:
            return
        step = view.training[long[0]].number
        summary = (
            f"{loss.node} is summed over its targets (reduction='sum'): {counts[long[0]]} of them at step {step}, "
            f"where {usual:.0f} are usual, so that this batch counts {counts[long[0]] / usual:.0f} times as much; "
            f"{len(long)} such steps in all."
        )
        yield self.finding(
            view, loss.node, "warning", summary, [evidence(view.history(loss.node), "mean", "a sum")], step=step,
            nodes=[target.node], confidence=0.85, source=view.flow.vertices[loss].source,
            causes="A sum over the words of a batch, whose texts have other lengths.",
            remedy="Divide by the number of targets that count: reduction='mean'.",
        )  # fmt: skip

    def _check(self, view: View, place: Place) -> Iterable[Finding]:
        history = view.history(place.node, role=place.role)
        sizes = history.of("abs_max")
        if len(sizes) < _LEAST or not np.isfinite(sizes).all():
            return
        usual = float(np.median(sizes))
        high = np.flatnonzero((sizes > self.factor * usual) & (sizes - usual > self.deviations * deviation(sizes)))
        if usual <= 0 or not 0 < len(high) <= _MOST_SHARE * len(sizes):
            return
        step = int(history.steps[high[0]])
        more = f"; {len(high)} such steps in all" if len(high) > 1 else ""
        kind = "target" if view.flow.vertices[place].type == "target" else "input"
        named = kind if place.node == kind else f"{kind} {place.node}"
        summary = f"The {named} goes up to {sizes[high[0]]:.3g} at step {step}, where {usual:.3g} is usual{more}."
        shown = [evidence(history, "abs_max", f"{sizes[high[0]]:.3g} at step {step}")]
        is_felt = view.broken or any(_has_risen(curve, step) or self._jumps(curve, step) for curve in loss_curves(view))
        level: Level = "warning" if is_felt else "info"
        yield self.finding(view, place.node, level, summary, shown, step=step, confidence=0.85)

    def _jumps(self, curve: Curve, step: int) -> bool:
        """Whether a loss is far from its median in that step."""
        here, others = curve.values[curve.steps == step], curve.values[curve.steps != step]
        if not len(here) or not len(others) or not np.isfinite(others).all():
            return False
        return bool(abs(here[0] - np.median(others)) > self.felt * deviation(others))


def _has_risen(curve: Curve, step: int) -> bool:
    """Whether a loss is larger after a step than up to it."""
    later, before = curve.values[curve.steps > step], curve.values[curve.steps <= step]
    return bool(len(later) and len(before) and np.median(later) > np.median(before))
