"""The rule ``learning-rate-decay``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.parameters import trainable
from stepscope.analysis.robust import largest
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View
from stepscope.store import Series


@dataclass(frozen=True)
class LearningRateDecay(Rule):
    """The learning rate has run out long before the training ends.

    Symptom: the loss falls at first and then stands still, exactly.

    How it is measured: the recorded curves of the optimizers' learning rates. The rate falls below a hundredth of its
    highest value in the first part of the recorded steps, and stays there.

    Causes: a scheduler that is meant for epochs is stepped once a batch, or its period is given in epochs instead of
    steps.

    Remedy: step the scheduler at the rhythm it is made for, or give its length in steps.

    Attributes:
        left: the part of the highest rate. Source: what the rest of the training can do is a hundredth, too;
            cosine schedules fall below it in the last 7%, those of ResNets (a tenth three times) in the last tenth.
        early: the part of the steps before which this must have happened.
        least: shorter curves are not judged.
    """

    name = "learning-rate-decay"
    causes = "A scheduler made for epochs that is stepped once a batch, or a period in epochs where steps are wanted."
    remedy = "Step the scheduler at the rhythm it is made for, or give its length in steps."
    left: float = 1e-2
    early: float = 0.6
    least: int = 10

    def check(self, view: View) -> Iterable[Finding]:
        for group, name in view.trial.scalar_names:
            if group != "optimizer" or not name.split("[")[0].endswith("lr"):
                continue
            curve = view.trial.scalars(name, group=group)
            onset = self._onset(curve)
            if onset is not None:
                yield self._finding(view, name, curve, onset)

    def _onset(self, curve: Series) -> int | None:
        """The position from which on nothing is left of the rate; None if that does not come, or comes late."""
        rates = curve.values
        if len(rates) < self.least or not largest(rates) > 0:
            return None
        peak = int(np.nanargmax(rates))
        alive = np.flatnonzero(rates >= 0.99 * self.left * rates[peak])
        onset = int(alive[-1]) + 1
        return onset if onset < self.early * len(rates) else None

    def _finding(self, view: View, name: str, curve: Series, onset: int) -> Finding:
        peak, step = largest(curve.values), int(curve.steps[onset])
        summary = (
            f"The learning rate {name} runs out: {peak:.3g} at its highest, {curve.values[onset]:.2g} at step {step} "
            f"of {curve.steps[-1]}, and no more after it."
        )
        held = [parameter.node for parameter in trainable(view)]
        return self.finding(
            view, held[0] if held else "", "warning", summary, step=step, nodes=held[1:], confidence=0.85
        )
