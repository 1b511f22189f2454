"""The rule ``flat-scores``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.baseline import count_classes
from stepscope.analysis.finding import Finding
from stepscope.analysis.history import Values
from stepscope.analysis.loss_inputs import Comparison, comparisons, is_whole
from stepscope.analysis.robust import largest, median, smallest
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class FlatScores(Rule):
    """Scores whose range is too narrow for the softmax of a cross-entropy: even a perfect net has a high loss.

    Symptom: the loss falls a little, then stays near log(classes), while the net may well rank the classes right.

    How it is measured: the range (largest less smallest) of the scores that a cross-entropy gets. With a range ``r``
    over ``n`` classes it cannot fall below ``log(1 + (n - 1) exp(-r))``. It counts if the range stays the same in the
    second half of the steps, this bound is a good part of log(n), and the loss made use of what it leaves; or if the
    range is tiny in all steps. Scores that are made of several recorded tensors on the way to the loss, as the products
    of two embeddings are, are not known, and not judged.

    Causes: cosines (of normalised vectors) without a scale; a temperature that multiplies where it should divide; a
    tanh or sigmoid before the softmax.

    Remedy: divide cosines by a temperature of 0.05 to 0.2, or learn their scale; give other scores to the loss as they
    are.

    Attributes:
        bound: as a part of log(n). Source: healthy nets reach a range whose bound is less than 0.2.
        still: the largest range over the smallest one in the second half. Source: what can still grow does
            so by half; those of single batches differ by a fifth.
        tiny: the range below which scores say nothing at all. Source: an untrained net's differ by 0.3 and more.
        used: the part of the way from log(n) down to the bound that the loss went: a net that does not learn at all has
            another cause.
    """

    name = "flat-scores"
    about = "loss"
    causes = "Cosines without a scale, a temperature that multiplies instead of dividing, or a tanh before the softmax."
    remedy = "Divide cosines by a temperature of 0.05 to 0.2 (or learn a scale); give logits to the loss as they are."
    bound: float = 0.5
    still: float = 1.3
    tiny: float = 0.02
    used: float = 0.3

    def check(self, view: View) -> Iterable[Finding]:
        for comparison in comparisons(view):
            classes = count_classes(comparison.shape, comparison.target_shape)
            if comparison.operation == "cross_entropy" and classes > 1 and is_whole(view, comparison):
                yield from self._look(view, comparison, classes)

    def _look(self, view: View, comparison: Comparison, classes: int) -> Iterable[Finding]:
        scores = view.history(comparison.prediction.node, role=comparison.prediction.role)
        loss = view.history(comparison.loss.node, role=comparison.loss.role).of("mean")
        ranges = scores.of("max") - scores.of("min")
        late = ranges[len(ranges) // 2 :]
        if len(ranges) < 20 or len(loss) != len(ranges) or not smallest(late) > 0:
            return
        lowest = math.log1p((classes - 1) * math.exp(-median(late)))
        most = math.log(classes)
        if largest(ranges) < self.tiny:
            yield self._finding(view, comparison, classes, late, lowest)
            return
        settled = largest(late) < self.still * smallest(late)
        used = most - median(loss[len(loss) // 2 :]) > self.used * (most - lowest)
        if settled and used and lowest > self.bound * most:
            yield self._finding(view, comparison, classes, late, lowest)

    def _finding(self, view: View, comparison: Comparison, classes: int, late: Values, lowest: float) -> Finding:
        scores = view.history(comparison.prediction.node, role=comparison.prediction.role)
        summary = (
            f"The scores {comparison.prediction.node} are too flat: they differ by {np.median(late):.2g} at most, so "
            f"that a cross-entropy over {classes} classes cannot fall below {lowest:.3g}, whatever is learned (no "
            f"knowledge at all gives {math.log(classes):.3g}). A scale, or a temperature that divides, is missing."
        )
        shown = [
            evidence(scores, "max", "the largest score"),
            evidence(view.history(comparison.loss.node, role=comparison.loss.role), "mean", f"at least {lowest:.3g}"),
        ]
        makers = [link.place.node for link in view.flow.sources.get(comparison.prediction, ())]
        nodes = [comparison.loss.node, *dict.fromkeys(makers)]
        step = int(scores.steps[0])
        return self.finding(
            view, comparison.prediction.node, "warning", summary, shown, step=step, nodes=nodes, confidence=0.8
        )
