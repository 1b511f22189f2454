"""The rule ``constant-data``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.neurons import neurons_of, tensor_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store.records import NEURON_STATISTICS

_STD = NEURON_STATISTICS.index("std")
_MADE = frozenset(
    ["zeros", "ones", "full", "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"]
)
"""What makes constants in the step itself, on purpose: the labels of a GAN, the start of a sum."""


@dataclass(frozen=True)
class ConstantData(Rule):
    """All samples of every batch have the same input, or the same target.

    Symptom: the loss falls to zero at once, or settles at once; nothing that is learned is of use.

    How it is measured: in up to five training steps over the whole run, every neuron of the input (or the target) has
    the same value for all samples of its batch. Trials with several losses are left out for targets: a GAN's real
    samples all have the target 1.

    Causes: a loader that returns one sample again and again, data sorted by class, labels that were overwritten,
    ``expand`` where a stack was meant.

    Remedy: look at a batch of data; shuffle it; check the indices of the data set.

    Source: no threshold; the spread is exactly zero. Constants that the step makes itself (``torch.zeros``) are meant.
    """

    name = "constant-data"
    causes = "A loader that returns one sample again and again, data sorted by class, or labels that were overwritten."
    remedy = "Look at a few batches by hand; shuffle the data; check the indices of the data set."

    def check(self, view: View) -> Iterable[Finding]:
        if not view.training:
            return
        inputs = view.flow.of_type("input")
        targets = view.flow.of_type("target") if len(view.objectives) == 1 else []
        used = view.flow.upstream(view.losses)
        for places, level in ((inputs, "warning"), (targets if len(targets) == 1 else [], "warning")):
            places = [place for place in places if view.flow.vertices[place].operation not in _MADE]
            found = [place for place in places if place in used and _is_constant(view, place)]
            varying = [place for place in places if place not in found]
            if found and not varying and level:
                yield self._finding(view, found[0])

    def _finding(self, view: View, place: Place) -> Finding:
        history = view.history(place.node, role=place.role)
        kind = "target" if view.flow.vertices[place].type == "target" else "input"
        summary = f"All samples of a batch have the same {kind}: {place.node} does not vary in any batch looked at."
        shown = [evidence(history, "std", "its spread over all elements")]
        return self.finding(view, place.node, "warning", summary, shown, step=int(history.steps[0]), confidence=0.9)


def _is_constant(view: View, place: Place) -> bool:
    """Whether no neuron varies over the batch, in all of some steps spread over the run."""
    chosen = [view.training[index] for index in {*np.linspace(0, len(view.training) - 1, 5).astype(int).tolist()}]
    looked = 0
    for step in chosen:
        tensor, kept = tensor_of(step, place), neurons_of(step, place)
        if tensor is None:
            continue
        batch = tensor.info.batch_dim
        if batch is None or tensor.shape[batch] < 4 or kept is None or kept.statistics is None:
            return False
        if np.any(kept.statistics[_STD] != 0):
            return False
        looked += 1
    return looked >= 3
