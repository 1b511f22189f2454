"""The rule ``loss-start``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.baseline import Baseline, baselines, is_sum
from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.flow import Place
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_SCALES = frozenset(["mul", "div", "truediv", "true_divide", "multiply", "divide"])
"""What makes scores of cosines, with a scale or a temperature that was chosen."""
_NEAR_ONE = 0.05


@dataclass(frozen=True)
class LossStart(Rule):
    """The loss of the first step is far from what an untrained net should have.

    Symptom: the first loss is many times larger than expected, and the first epoch is spent on shrinking outputs.

    How it is measured: an untrained classifier should give every class the same chance, so its cross-entropy starts
    near log(classes), a binary one near log(2); a regression should start near the mean square of its targets, which
    is what an output of 0 gives. The loss of step 0 is compared with that. Losses that sum over the batch are
    known by being the batch's size times too large, and left out.

    Causes: last layers that are initialised too large, inputs that are not normalised, targets that are not scaled.

    Remedy: shrink the weights of the last layer, normalise inputs and targets.

    Attributes:
        factor: how many times the expected loss is too much for a classifier. Source: PyTorch's default
            initialisation gave 0.99 to 1.19 times log(classes) in 100 small nets on normalised data.
        regression_factor: the same for the mean square of the targets.
        severe: the factor from which on it is a warning for a classifier. Source: cosines that are multiplied by a
            scale of 16 start at 3, and train well; that is worth knowing only, as are all scores that are multiplied
            or divided at last, by a scale or a temperature that was chosen.
        latest: a first recorded step after this one says nothing about the start.
    """

    name = "loss-start"
    causes = "A last layer that is initialised too large, inputs that are not normalised, or targets without scaling."
    remedy = "Normalise inputs and targets; initialise the last layer smaller (its outputs should be near 0)."
    factor: float = 2.5
    regression_factor: float = 20.0
    severe: float = 5.0
    latest: int = 0

    def check(self, view: View) -> Iterable[Finding]:
        for baseline in baselines(view):
            history = view.history(baseline.loss.node, role=baseline.loss.role)
            if not len(history) or history.steps[0] > self.latest or _has_other_targets(view, baseline):
                continue
            start = float(history.of("mean")[0])
            factor = self.factor if baseline.is_classification else self.regression_factor
            if not math.isfinite(start) or start <= factor * baseline.start or is_sum(start, baseline):
                continue
            if not _is_beyond_scores(view, baseline, start):
                yield self._finding(view, baseline, start)

    def _finding(self, view: View, baseline: Baseline, start: float) -> Finding:
        history = view.history(baseline.loss.node, role=baseline.loss.role)
        output = view.history(baseline.prediction.node, role=baseline.prediction.role)
        is_scaled = view.flow.vertices[baseline.prediction].operation in _SCALES
        is_mild = baseline.is_classification and (is_scaled or start < self.severe * baseline.start)
        level: Level = "info" if is_mild else "warning"
        summary = (
            f"{baseline.loss.node} starts at {start:.3g}, {start / baseline.start:.1f} times the {baseline.start:.3g} "
            f"that {baseline.text}; {baseline.prediction.node} reaches {float(output.of('abs_max')[0]):.3g}."
        )
        table = _table_as_it_came(view, baseline.prediction)
        if table:
            summary += (
                f" It is a product with {table}, whose initial vectors are unit normal numbers, the default of "
                f"nn.Embedding: far too large for scores."
            )
        shown = [evidence(history, "mean", f"starts at {start:.3g}"), evidence(output, "abs_max", "the outputs' size")]
        return self.finding(
            view, baseline.prediction.node, level, summary, shown,
            step=int(history.steps[0]), confidence=0.8, nodes=[*([table] if table else []), baseline.loss.node],
        )  # fmt: skip


def _table_as_it_came(view: View, prediction: Place) -> str:
    """The weight of an embedding at its default start that scores are a product with; empty if there is none."""
    for link in view.flow.sources.get(prediction, ()):
        module = view.modules.get(link.place.node.rpartition(".")[0])
        std = view.history(link.place.node).of("std")
        if module is not None and module.module_class == "Embedding" and len(std) and abs(std[0] - 1) < _NEAR_ONE:
            return link.place.node
    return ""


def _is_beyond_scores(view: View, baseline: Baseline, start: float) -> bool:
    """Whether a classifier's loss is larger than its scores allow for one sample: then it is a sum over several.

    A cross-entropy is at most the logarithm of the classes plus twice the largest score.
    """
    output = view.history(baseline.prediction.node, role=baseline.prediction.role)
    return baseline.is_classification and start > 1.5 * (baseline.start + 2 * float(output.of("abs_max")[0]))


def _has_other_targets(view: View, baseline: Baseline) -> bool:
    """Whether a regression is held against something computed, too: what a target network says of the next state."""
    links = view.flow.sources.get(baseline.loss, ())
    computed = (not link.differentiable and view.flow.vertices[link.place].type == "calculated" for link in links)
    return not baseline.is_classification and any(computed)
