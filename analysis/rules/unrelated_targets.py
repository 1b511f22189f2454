"""The rule ``unrelated-targets``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.baseline import Baseline, baselines
from stepscope.analysis.curves import LEAST_POINTS, loss_curves
from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.loss_inputs import comparisons
from stepscope.analysis.relation import are_related, gather_pairs
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_MOST_STEPS = 120
_MOST_FEATURES = 64
_MOST_SAMPLES = 500


@dataclass(frozen=True)
class UnrelatedTargets(Rule):
    """Nothing in the inputs tells the targets: they belong to other samples, or to chance.

    Symptom: the loss stays at that of the best constant answer, whatever the net and the learning rate.

    How it is measured: only if the loss is no better than a constant answer at the end. The kept samples of the
    recorded steps are gathered; if the targets of nearest neighbours are no nearer than others, and no single feature
    goes with a target, both within three standard deviations of chance, then no relation was found. A relation
    that neither shows (parity, pictures of many kinds) is possible: so the confidence is low.

    Causes: inputs shuffled without their targets, files sorted in two ways, an index off by one, labels drawn anew.

    Remedy: look at some samples with their targets by hand; shuffle indices, not arrays.

    Attributes:
        level: the part of the constant answer's loss that counts as no better. Source: of ours; a net that learns
            single samples by heart is a little better.
        samples: fewer different ones prove nothing.
    """

    name = "unrelated-targets"
    causes = "Inputs shuffled without their targets, files sorted in two ways, an index that is off by one."
    remedy = "Look at some samples with their targets by hand; shuffle indices, not arrays."
    level: float = 0.9
    samples: int = 80

    def check(self, view: View) -> Iterable[Finding]:
        known = {baseline.loss: baseline for baseline in baselines(view) if np.isfinite(baseline.constant)}
        for curve in loss_curves(view):
            baseline = known.get(curve.place)
            if baseline is None or len(curve) < LEAST_POINTS or curve.end < self.level * baseline.constant:
                continue
            yield from self._look(view, baseline, curve.end)

    def _look(self, view: View, baseline: Baseline, end: float) -> Iterable[Finding]:
        targets = [c.target for c in comparisons(view) if c.loss == baseline.loss and c.target is not None]
        inputs = [place for place in view.flow.of_type("input") if place in view.flow.upstream([baseline.prediction])]
        if len(inputs) != 1 or len(targets) != 1:
            return
        steps = view.training[:: max(1, len(view.training) // _MOST_STEPS)]
        x, y = gather_pairs(steps, inputs[0], targets[0])
        x, y = x[:_MOST_SAMPLES, :: max(1, x.shape[1] // _MOST_FEATURES)], y[:_MOST_SAMPLES]
        if len(x) >= self.samples and y.std() > 0 and not are_related(x, y):
            yield self._finding(view, baseline, targets[0], inputs[0], len(x), end)

    def _finding(self, view: View, baseline: Baseline, target: Place, given: Place, count: int, end: float) -> Finding:
        summary = (
            f"No relation between {given.node} and {target.node} was found in {count} samples, and the loss stays at "
            f"{end:.3g}, where a constant answer gives {baseline.constant:.3g}."
        )
        loss = view.history(baseline.loss.node, role=baseline.loss.role)
        shown = [evidence(loss, "mean", "the loss"), evidence(view.history(target.node), "std", "the targets")]
        return self.finding(
            view, target.node, "warning", summary, shown, step=view.training[0].number, nodes=[given.node],
            confidence=0.5,
        )  # fmt: skip
