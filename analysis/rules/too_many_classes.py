"""The rule ``too-many-classes``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.baseline import count_classes
from stepscope.analysis.finding import Finding
from stepscope.analysis.loss_inputs import OF_CLASSES, Comparison, comparisons
from stepscope.analysis.robust import median
from stepscope.analysis.rule import Rule
from stepscope.analysis.sample_count import count_samples
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class TooManyClasses(Rule):
    """So many classes that only a handful of samples is there for each.

    Symptom: the training data become known by heart, and others are answered no better than by chance.

    How it is measured: how many samples there are is estimated from how often kept inputs come again: ``k`` drawn rows
    of which ``d`` differ are from about ``n`` samples with ``d = n (1 - exp(-k / n))``; where each step has the same
    data, there are as many as targets. That number is divided by the outputs of the net. An evaluating kind of step
    has to be answered hardly better than by chance.

    Causes: labels that are too fine (articles, persons, streets) for the data that are there.

    Remedy: join classes, or take those above them; collect more samples; learn to compare (metric learning) instead.

    Source: Humbatova et al., Taxonomy of real faults in deep learning systems (ICSE 2020): too many output categories.

    Attributes:
        classes: fewer are not judged.
        each: so many samples for each class are enough. Source: of ours; benchmarks of few samples have 1 to 5.
        better: the part of log(classes) that an evaluating kind of step must have lost.
    """

    name = "too-many-classes"
    about = "loss"
    causes = "Labels that are too fine for the data: articles, persons or streets as classes."
    remedy = "Join classes, or use those above them; collect more samples; or learn to compare (metric learning)."
    classes: int = 20
    each: float = 5.0
    better: float = 0.2

    def check(self, view: View) -> Iterable[Finding]:
        for comparison in [] if view.is_young else comparisons(view):
            if comparison.operation not in OF_CLASSES or comparison.target is None or len(comparison.target_shape) != 1:
                continue
            classes = count_classes(comparison.shape, comparison.target_shape)
            if classes >= self.classes and not self._learns(view, comparison, classes):
                samples = _count_samples(view, comparison)
                if 0 < samples < self.each * classes:
                    yield self._finding(view, comparison, classes, samples)
                    return

    def _learns(self, view: View, comparison: Comparison, classes: int) -> bool:
        """Whether other data are answered better than by chance, as far as is known."""
        history = view.history(comparison.loss.node, role=comparison.loss.role, training=False)
        trained = {step.number for step in view.training}
        losses = history.of("mean")[~np.isin(history.steps, list(trained))]
        return not len(losses) or median(losses[-3:]) < (1 - self.better) * math.log(classes)

    def _finding(self, view: View, comparison: Comparison, classes: int, samples: float) -> Finding:
        assert comparison.target is not None
        history = view.history(comparison.target.node, role=comparison.target.role)
        summary = (
            f"{comparison.prediction.node} tells {classes} classes apart, and there seem to be about {samples:.2g} "
            f"samples: {samples / classes:.1f} for each, which are too few examples for so many categories."
        )
        return self.finding(
            view, comparison.target.node, "warning", summary, [evidence(history, "max", "the largest class")],
            step=view.began, nodes=[comparison.prediction.node, comparison.loss.node], confidence=0.7,
        )  # fmt: skip


def _count_samples(view: View, comparison: Comparison) -> float:
    """About how many samples the training has; 0 if that is not known."""
    behind = view.flow.upstream([comparison.loss])
    places = [place for place in view.flow.of_type("input") if place in behind]
    if places and all(view.history(place.node, role=place.role).is_constant for place in places):
        return float(comparison.target_shape[0])  # of a graph, say, of which some rows are asked for
    return count_samples(view, comparison.loss)
