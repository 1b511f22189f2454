"""The rule ``loss-spike``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.batch_size import inputs_with_batch, samples_of
from stepscope.analysis.curves import Curve, loss_curves, running_median
from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.robust import NORMAL, deviation
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_LEAST, _AROUND = 20, 5
_FEW = 2
"""Samples of a batch whose loss jumps with each of them."""


@dataclass(frozen=True)
class LossSpike(Rule):
    """Single steps whose loss jumps far above its neighbours and comes back.

    Symptom: peaks in the loss curve; after each, some of what was learned is gone.

    How it is measured: the loss against the running median of its neighbourhood of the same kind of step, in units of
    that neighbourhood's median absolute deviation, and as a multiple; and the jump must be a good part of the first
    loss, so that the tail of a run that is almost done does not count. It is a warning if the five recorded steps after
    one of the spikes are still far above the five before, so that something was lost; a batch that is harder than all
    others, and harms nothing, is worth knowing only, and so are the jumps of batches of one or two samples. What does
    not come back is told by ``loss-jump``.

    Causes: single broken or mislabelled samples, a learning rate at the edge, missing gradient clipping, Adam's second
    moment that lags behind growing gradients.

    Remedy: look at the batch of that step; clip gradients; lower the learning rate or beta2.

    Attributes:
        factor: times the neighbourhood's median. Source: gradglass's 5.
        deviations: times its median absolute deviation (1.4826 MAD). Source: trainscope's 3.5, doubled and more,
            because nobody can look at one false spike a run.
        part: of the first tenth's level.
        usual: times the distance that nine of ten steps keep to; it leaves out runs that are noisy throughout.
    """

    name = "loss-spike"
    causes = "A broken or mislabelled batch, a learning rate at the edge of stability, or missing gradient clipping."
    remedy = "Look at the batch of that step; clip gradients by their norm; lower the learning rate."
    factor: float = 5.0
    deviations: float = 10.0
    part: float = 0.5
    usual: float = 4.0

    def check(self, view: View) -> Iterable[Finding]:
        for curve in loss_curves(view):
            spikes = [index for index in self._spikes(curve) if self._comes_back(curve, index)]
            if spikes:
                yield self._finding(view, curve, spikes)

    def _spikes(self, curve: Curve) -> list[int]:
        """The positions of the spikes in the curve: not at its ends, where nothing says that it comes back."""
        if len(curve) < _LEAST:
            return []
        middle = running_median(curve.values, 11)
        spread = NORMAL * running_median(np.abs(curve.values - middle), 11) + 1e-12
        excess = curve.values - middle
        high = (excess > self.deviations * spread) & (excess > (self.factor - 1) * np.abs(middle))
        high &= excess > self.part * abs(curve.start)
        high &= excess > self.usual * np.quantile(np.abs(excess), 0.9)
        high[:2] = high[-2:] = False
        return [int(index) for index in np.flatnonzero(high)]

    def _limit(self, curve: Curve, index: int) -> float:
        """What is far above the steps before a spike."""
        before = curve.values[max(0, index - _AROUND) : index]
        middle = float(np.median(before))
        return middle + max(self.deviations * deviation(before), (self.factor - 1) * abs(middle))

    def _comes_back(self, curve: Curve, index: int) -> bool:
        """Whether it returns to where it was, at some time."""
        after = curve.values[index + 1 :]
        return bool(running_median(after, min(_AROUND, len(after))).min() <= self._limit(curve, index))

    def _harms(self, curve: Curve, index: int) -> bool:
        """Whether the steps right after it are worse than those before."""
        return float(np.median(curve.values[index + 1 : index + 1 + _AROUND])) > self._limit(curve, index)

    def _finding(self, view: View, curve: Curve, spikes: list[int]) -> Finding:
        first = spikes[0]
        usual = float(running_median(curve.values, 11)[first])
        step = int(curve.steps[first])
        more = f"; {len(spikes)} such spikes in all" if len(spikes) > 1 else ""
        summary = (
            f"{curve.place.node} jumps to {curve.values[first]:.3g} at step {step}, where {usual:.3g} is usual, and "
            f"comes back{more}."
        )
        shown = [evidence(curve.history, "mean", f"{curve.values[first]:.3g} at step {step}")]
        harms = any(self._harms(curve, index) for index in spikes) and _samples(view) > _FEW
        level: Level = "warning" if harms else "info"
        return self.finding(view, curve.place.node, level, summary, shown, step=step, confidence=0.75)


def _samples(view: View) -> float:
    """How many samples the largest input has; infinite if nothing is known of them."""
    return max((samples_of(view, node) for node in inputs_with_batch(view)), default=np.inf)
