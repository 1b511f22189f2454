"""The rule ``averaged-twice``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.lines import sites_of
from stepscope.analysis.loss_inputs import Comparison, comparisons
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_FEWEST, _EXACT = 3, 1e-4


@dataclass(frozen=True)
class AveragedTwice(Rule):
    """A loss that is a mean over its samples already is divided by the size of the batch once more.

    Symptom: learning is slow, or one of several losses is hardly learned; results change with the batch size.

    How it is measured: the gradient of a loss function that gives a mean, and is called once in a step, is 1 over the
    number of samples of its prediction in all recorded training steps.

    Causes: ``loss / len(batch)`` where ``reduction="mean"`` is the default; a sum was meant.

    Remedy: leave the division out, or give the loss ``reduction="sum"``.

    Source: eriklindernoren/PyTorch-YOLOv3 pull request 137.

    Attributes:
        least: samples of the smallest batch that is judged. Source: of ours; weights such as 1/2 and 1/4 are usual.
    """

    name = "averaged-twice"
    about = "loss"
    causes = 'The loss is divided by the size of the batch, although reduction="mean" is the default.'
    remedy = 'Leave the division out, or give the loss reduction="sum".'
    least: int = 8

    def check(self, view: View) -> Iterable[Finding]:
        summed = {place for site in sites_of(view, "summed") for place in site.after}
        every = [one for one in comparisons(view) if one.loss not in summed and one.loss not in view.objectives]
        calls = Counter(one.loss.node for one in every)
        for one in every:
            if calls[one.loss.node] == 1 and self._is_divided(view, one):
                yield self._finding(view, one)

    def _is_divided(self, view: View, one: Comparison) -> bool:
        weights = view.history(one.loss.node, "gradient", role=one.loss.role)
        shapes = [view.shape(one.prediction, step) for step in view.training if step.number in weights.steps]
        sizes = np.array([shape[0] if shape else 0 for shape in shapes])
        if len(sizes) < _FEWEST or len(sizes) != len(weights) or sizes.min() < self.least:
            return False
        return bool(np.all(np.abs(weights.of("mean") * sizes - 1) < _EXACT))

    def _finding(self, view: View, one: Comparison) -> Finding:
        samples = one.shape[0]
        summary = (
            f"{one.loss.node} is a mean over its {samples} samples, and is divided by {samples} once more: it is "
            f"averaged twice, by the batch size."
        )
        weights = view.history(one.loss.node, "gradient", role=one.loss.role)
        return self.finding(
            view, one.loss.node, "warning", summary, [evidence(weights, "mean", "its weight: 1 over the batch size")],
            step=view.began, nodes=[one.prediction.node], confidence=0.8,
        )  # fmt: skip
