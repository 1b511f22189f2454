"""The rule ``unrelated-targets``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.baseline import baselines
from stepscope.analysis.curves import LEAST_POINTS, Curve, loss_curves
from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.flow import Place
from stepscope.analysis.lines import sites_of
from stepscope.analysis.loss_inputs import MADE, comparisons, is_floating
from stepscope.analysis.parameters import listed
from stepscope.analysis.relation import are_related, gather_pairs, go_together
from stepscope.analysis.renumbered import answers, how_renumbered
from stepscope.analysis.robust import median
from stepscope.analysis.rule import Rule
from stepscope.analysis.spread import relative_spread
from stepscope.analysis.view import View, evidence
from stepscope.store import Step

_MOST_STEPS = 120
_MOST_FEATURES = 64
_MOST_SAMPLES = 500
_SPARSE, _KNOWN = 0.9, 0.6
"""The share of zeros from which the nearest neighbours of an input are those with the fewest other numbers;
the part of a constant answer's loss below which the training's data are known."""


@dataclass(frozen=True)
class UnrelatedTargets(Rule):
    """Nothing in the inputs tells the targets: they belong to other samples, or to chance.

    Symptom: the loss stays at that of the best constant answer, whatever the net and the learning rate.

    How it is measured: only if the loss is no better than a constant answer at the end. The kept samples of the
    recorded steps are gathered; if the targets of nearest neighbours are no nearer than others, and no single feature
    goes with a target, both within three standard deviations of chance, then no relation was found. A relation
    that neither shows (parity, pictures of many kinds) is possible: so the confidence is low, and for words or sparse
    inputs, whose neighbours say little, it is worth knowing only. A net whose answer is the very same for all samples,
    from the start to the end, proves nothing. Besides: of two sides of a loss, ``(a, b)`` was flattened on one and
    ``(b, a)`` on the other.

    In steps that only evaluate, and are worse than a constant answer although the training is far better: if the net's
    answers for the kept samples are wrong in one and the same way (all by the same difference, or another number for
    each class), then the labels are numbered in another way than those of the training.

    Causes: inputs shuffled without their targets, files sorted in two ways, an index off by one, labels drawn anew;
    classes that are numbered by the folders, or words, that happen to be there.

    Remedy: look at some samples with their targets by hand; shuffle indices, not arrays.

    Attributes:
        level: the part of the constant answer's loss that counts as no better. Source: of ours; a net that learns
            single samples by heart is a little better.
        far: times the loss of a constant answer, from which on the training has blown up, whatever the data.
            Source: of ours; wrong targets cost a few times as much.
        samples: fewer different ones prove nothing.
    """

    name = "unrelated-targets"
    causes = "Inputs shuffled without their targets, files sorted in two ways, an index that is off by one."
    remedy = "Look at some samples with their targets by hand; shuffle indices, not arrays."
    level: float = 0.9
    far: float = 100.0
    samples: int = 80

    def check(self, view: View) -> Iterable[Finding]:
        yield from self._in_another_order(view)
        yield from self._numbered_otherwise(view)
        known = {baseline.loss: baseline for baseline in baselines(view) if np.isfinite(baseline.constant)}
        for curve in loss_curves(view):
            baseline = known.get(curve.place)
            constant = curve.low_start if baseline is None else baseline.constant
            if len(curve) < LEAST_POINTS or not 0 < self.level * constant <= curve.end < self.far * constant:
                continue
            yield from self._look(view, curve, constant)

    def _in_another_order(self, view: View) -> Iterable[Finding]:
        """Prediction and target that were flattened along reversed dimensions, as the loss's own call shows."""
        for site in sites_of(view, "other order"):
            sources = sorted(site.before, key=lambda place: view.position.get(place.node, 0))
            targets = [place for place in sources if view.flow.vertices[place].type == "target"]
            nodes = list(dict.fromkeys(place.node for place in (*targets, *site.after, *sources)))
            summary = (
                f"Prediction and target of {site.operation} were flattened in another order, one of them transposed: "
                f"each prediction meets the target of another one, from {listed(place.node for place in sources)}."
            )
            yield self.finding(
                view, nodes[0], "error", summary, step=view.began, nodes=nodes[1:], confidence=0.95,
                source=site.source, causes="(batch, time) was flattened on one side, (time, batch) on the other.",
                remedy="Bring both into the same order, by a transpose, before they are flattened.",
            )  # fmt: skip

    def _numbered_otherwise(self, view: View) -> Iterable[Finding]:
        """Evaluations whose labels are those of the training, in another numbering."""
        ends = {curve.place: curve.end for curve in loss_curves(view)}
        for comparison in (c for c in comparisons(view) if len(c.shape) == 2 and len(c.target_shape) == 1):
            constant = math.log(max(comparison.shape[1], 2))
            if comparison.target is None or not ends.get(comparison.loss, constant) < _KNOWN * constant:
                continue
            for kind in sorted({step.kind for step in view.steps} - view.training_kinds):
                steps = [step for step in view.steps if step.kind == kind]
                known = steps[len(steps) // 3 :]  # the first ones may be wrong in any way
                chosen, wanted = answers(known, comparison.prediction, comparison.target)
                how = how_renumbered(chosen, wanted)
                if how:
                    yield self._renumbered(view, comparison.target, comparison.loss, kind, how, steps[0].number)

    def _renumbered(self, view: View, target: Place, loss: Place, kind: str, how: str, step: int) -> Finding:
        summary = (
            f"The labels of kind {kind!r} are numbered in another way than those of the training: {how}. The net may "
            f"be right, and the {kind} labels wrong."
        )
        every = view.history(loss.node, role=loss.role, training=False)
        return self.finding(
            view, target.node, "warning", summary, [evidence(every, "mean", f"the loss of kind {kind!r}", kind)],
            step=step, nodes=[loss.node], confidence=0.85,
            causes="Classes that are numbered by the folders, files or words that are there: one is missing, or sorted "
            "in another way.",
            remedy="Number the classes once, for the training, and use that table for all other data.",
        )  # fmt: skip

    def _look(self, view: View, curve: Curve, constant: float) -> Iterable[Finding]:
        compared = [c for c in comparisons(view) if c.loss == curve.place and c.target is not None]
        targets = {c.target: c.prediction for c in compared if c.target is not None}
        if len(targets) != 1:
            return
        ((target, prediction),) = targets.items()
        if view.flow.vertices[target].operation in MADE or _says_nothing(view, prediction):
            return
        behind = view.flow.upstream([prediction])
        inputs = [place for place in view.flow.of_type("input") if place in behind]
        steps = view.training[:: max(1, len(view.training) // _MOST_STEPS)]
        looked = [self._is_related(steps, given, target) for given in inputs]
        if looked and not any(related is None or related for related in looked):
            yield self._finding(view, curve, target, inputs[0], constant)

    def _is_related(self, steps: list[Step], given: Place, target: Place) -> bool | None:
        """Whether an input tells the targets; None if too few samples are known to say so."""
        for each_once, ask in ((True, are_related), (False, go_together)):
            x, y = gather_pairs(steps, given, target, each_once=each_once)
            x, y = x[:_MOST_SAMPLES, :: max(1, x.shape[1] // _MOST_FEATURES)], y[:_MOST_SAMPLES]
            if len(x) >= self.samples and y.std() > 0:
                return ask(x, y)
        return None

    def _finding(self, view: View, curve: Curve, target: Place, given: Place, constant: float) -> Finding:
        summary = (
            f"No relation between {given.node} and {target.node} was found, and the loss stays at {curve.end:.3g}, "
            f"where a constant answer gives about {constant:.3g}: do the targets belong to other samples?"
        )
        shown = [evidence(curve.history, "mean", "the loss"), evidence(view.history(target.node), "std", "the targets")]
        zeros = median(view.history(given.node, role=given.role).of("zero_fraction"))
        level: Level = "warning" if is_floating(view, given) and zeros < _SPARSE else "info"
        return self.finding(
            view, target.node, level, summary, shown, step=view.began, nodes=[given.node],
            confidence=0.5,
        )  # fmt: skip


def _says_nothing(view: View, prediction: Place) -> bool:
    """Whether a prediction is the very same for all samples, before anything is learned and after."""
    return all(relative_spread(view.training[index], prediction) == 0 for index in (0, -1))
