"""The rule ``softmax-over-batch``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.neurons import neurons_of, tensor_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.units import late_steps
from stepscope.analysis.view import View, evidence
from stepscope.store import Step
from stepscope.store.records import NEURON_STATISTICS

_MEAN = NEURON_STATISTICS.index("mean")


@dataclass(frozen=True)
class SoftmaxOverBatch(Rule):
    """A softmax whose values add up to one over the samples instead of over the classes.

    Symptom: probabilities shrink with the batch size; samples influence each other; evaluation one by one fails.

    How it is measured: every kept neuron of the softmax has a mean over the batch of exactly one over the batch's size,
    which the samples of a softmax over classes do not have.

    Causes: ``dim=0`` where ``dim=1`` or ``dim=-1`` was meant.

    Remedy: ``softmax(dim=-1)``.

    Attributes:
        tolerance: of that equality, relative. Source: float32 rounding, with room.
    """

    name = "softmax-over-batch"
    causes = "dim=0 where dim=1 or dim=-1 was meant."
    remedy = "Apply the softmax to the dimension of the classes: dim=-1."
    tolerance: float = 1e-3

    def check(self, view: View) -> Iterable[Finding]:
        steps = late_steps(view, 3)
        for place, vertex in view.flow.vertices.items():
            if vertex.operation != "softmax" or len(list(view.flow.same_tensor(place))) > 1:
                continue
            if len(steps) > 1 and all(self._adds_up(step, place) for step in steps):
                yield self._finding(view, place)

    def _adds_up(self, step: Step, place: Place) -> bool:
        tensor, kept = tensor_of(step, place), neurons_of(step, place)
        if tensor is None or kept is None or kept.statistics is None or len(kept.statistics[_MEAN]) < 2:
            return False
        batch = tensor.shape[tensor.info.batch_dim or 0]
        is_square = batch == tensor.shape[-1]  # uniform probabilities would look the same
        close = np.abs(kept.statistics[_MEAN] * batch - 1) < self.tolerance
        return batch > 1 and not is_square and bool(np.all(close))

    def _finding(self, view: View, place: Place) -> Finding:
        history = view.history(place.node, role=place.role)
        summary = f"The softmax of {place.node} adds up to one over the samples of the batch, not over the classes."
        shown = [evidence(history, "mean", "one over the batch's size")]
        return self.finding(view, place.node, "error", summary, shown, step=int(history.steps[0]), confidence=0.95)
