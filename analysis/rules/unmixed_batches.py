"""The rule ``unmixed-batches``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.loss_inputs import is_floating
from stepscope.analysis.rule import Rule
from stepscope.analysis.spread import neuron_moments
from stepscope.analysis.view import View, evidence

_STEPS, _KNOWN, _LEAST = 10, 5, 6
"""Steps that are looked at, those of them that must tell, and the fewest numbers of an input that is judged."""


@dataclass(frozen=True)
class UnmixedBatches(Rule):
    """A good part of the input is the same for all samples of a batch, and another one in the next batches.

    Symptom: the loss falls, and jumps up again as the next kind of samples comes; what was learned before is forgotten.

    How it is measured: in ten training steps over the whole run, numbers of a floating-point input that have one value
    for all samples of each batch, but not for all batches. What all samples share may be meant (a time, a task), so it
    is worth knowing only.

    Causes: environments that are all started at the same moment, and go through it in step; files or recordings that
    are read one after the other, a batch from each.

    Remedy: shuffle the data; start each environment at a moment of its own.

    Source: Andy Jones, *Debugging RL, Without the Agonizing Pain*: mix your vectorized environments.

    Attributes:
        share: the part of an input's numbers that a batch has in common. Source: of ours; a time or a task that all
            samples share is less of an input.
        alike, apart: the spread within a batch, as a part of the mean, that is no more than rounding; and how far the
            means of two batches must be apart.
    """

    name = "unmixed-batches"
    causes = "Environments that were all started at the same moment, or data that are read in the order of their files."
    remedy = "Shuffle the data; start each environment at a moment of its own."
    share: float = 0.25
    alike: float = 1e-6
    apart: float = 1e-3

    def check(self, view: View) -> Iterable[Finding]:
        used = view.flow.upstream(view.losses) if view.training else set()
        for place in (place for place in view.flow.of_type("input") if place in used and is_floating(view, place)):
            share = self._in_common(view, place)
            if share >= self.share:
                history = view.history(place.node, role=place.role)
                summary = (
                    f"{share:.0%} of the numbers of {place.node} are the same for all samples of a batch, and others "
                    f"in the next batches: its samples begin together, or are of one kind or moment, and are not mixed."
                )
                shown = [evidence(history, "mean", "the batches' means")]
                step = int(history.steps[0])
                yield self.finding(view, place.node, "info", summary, shown, step=step, confidence=0.6)

    def _in_common(self, view: View, place: Place) -> float:
        """The part of an input's numbers that vary between batches only; 0 if that is not known."""
        found = [neuron_moments(step, place) for step in view.training[:: max(1, len(view.training) // _STEPS)]]
        moments = [pair for pair in found if pair is not None]
        if len(moments) < _KNOWN or len({len(mean) for mean, _ in moments}) > 1 or len(moments[0][0]) < _LEAST:
            return 0.0
        means, spreads = np.array([mean for mean, _ in moments]), np.array([std for _, std in moments])
        is_common = (spreads <= self.alike * np.abs(means)).all(axis=0) & (np.ptp(means, axis=0) > self.apart)
        return 0.0 if is_common.all() else float(is_common.mean())
