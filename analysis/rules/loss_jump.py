"""The rule ``loss-jump``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.curves import Curve, running_median
from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.rule import Rule
from stepscope.analysis.turned import turned_curves
from stepscope.analysis.turns import DEVIATIONS, FACTOR, PART, Turn
from stepscope.analysis.view import View, evidence

_LEAST, _SMOOTH = 20, 5


@dataclass(frozen=True)
class LossJump(Rule):
    """A loss that was low jumps up in the midst of the training, and does not come back.

    Symptom: all was well until one step.

    How it is measured: the loss of one kind of step, all recorded ones; the medians of 10 to 25 of them before and
    after a point. The higher level is three times the lower one, ten of its deviations (1.4826 MAD) above it, and a
    fifth of the first loss; and the last tenth of the run is as high. Where something else is wrong only from that step
    on, it is told as the cause: the rules that look at data, modes, gradients and updates look at the steps after the
    jump by themselves. As long as less than 20 recorded steps, or a third of those before, have followed, it is worth
    knowing only: it may be on its way back.

    Causes: another learning rate or other data from that step on, a checkpoint that was loaded, a mode that was
    switched, a batch that destroyed the weights.

    Remedy: look at what the script does at that step: schedules, epochs, loaded weights, the next file of the data.

    Attributes:
        factor: times the lower level. Source: of ours; restarts of the learning rate (Loshchilov and Hutter, 2017) rise
            as far, but come back.
        deviations: of the lower level (1.4826 MAD). Source: that of ``loss-spike``.
        part: of the first loss, so that the tail of a run that is almost done does not count. Source: of ours.
        recovered: part of the new level below which it must not fall again, else it is worth knowing only: harder data
            may be meant. Source: of ours.
    """

    name = "loss-jump"
    about = "loss"
    causes = "Another learning rate, other data, other weights or another mode from that step on."
    remedy = "Look at what the script does at that step: schedules, epochs, loaded weights, the next file of the data."
    factor: float = FACTOR
    deviations: float = DEVIATIONS
    part: float = PART
    recovered: float = 0.6

    def check(self, view: View) -> Iterable[Finding]:
        for curve, turn in turned_curves(view, factor=self.factor, deviations=self.deviations, part=self.part):
            yield self._finding(view, curve, turn)

    def _finding(self, view: View, curve: Curve, turn: Turn) -> Finding:
        step = int(curve.steps[turn.index])
        summary = (
            f"{curve.place.node} jumps from {turn.before:.3g} to {turn.after:.3g} at step {step}, and has not come "
            f"back: it is {curve.end:.3g} at the end."
        )
        shown = [evidence(curve.history, "mean", f"{turn.before:.3g} to {turn.after:.3g} at step {step}")]
        after = curve.values[turn.index :]
        is_late = len(after) >= max(_LEAST, turn.index // 3)
        lowest = min(curve.end, float(running_median(after, min(_SMOOTH, len(after))).min()))
        level: Level = "warning" if is_late and lowest >= self.recovered * turn.after else "info"
        return self.finding(view, curve.place.node, level, summary, shown, step=step, confidence=0.85)
