"""The rule ``untied-weights``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.parameters import Parameter, trainable
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class UntiedWeights(Rule):
    """The weights of an embedding and of the output layer were one and the same, and part.

    Symptom: none at first; the model is larger than it should be, learns more slowly, and does not survive saving.

    How it is measured: an embedding and a linear layer with weights of the same shape, whose statistics (mean, std,
    extremes, norm) are equal, bit for bit, in the first recorded step that has both, and differ later. Tied weights are
    one parameter with two names, which never shows twice.

    Causes: a copy where a share was meant (``head.weight.data = embedding.weight.data.clone()``), a model that was
    moved, wrapped, sharded or loaded by something that makes new tensors.

    Remedy: assign the parameter itself (``head.weight = embedding.weight``), after moving and loading.

    Source: no threshold.
    """

    name = "untied-weights"
    causes = "A copy where a share was meant, or a model that was moved, sharded or loaded into new tensors."
    remedy = "Assign the parameter itself: head.weight = embedding.weight, after moving and loading the model."

    def check(self, view: View) -> Iterable[Finding]:
        every = [parameter for parameter in trainable(view) if len(parameter.shape) == 2]
        embeddings = [parameter for parameter in every if parameter.module_class == "Embedding"]
        layers = [parameter for parameter in every if parameter.module_class == "Linear"]
        for one in embeddings:
            for two in layers:
                parted = _parted(view, one, two) if one.shape == two.shape else None
                if parted is not None:
                    yield self._finding(view, one.node, two.node, parted)

    def _finding(self, view: View, one: str, two: str, step: int) -> Finding:
        summary = f"{one} and {two} start as the same numbers and differ from step {step} on: they are not tied."
        shown = [evidence(view.history(one), "norm", one), evidence(view.history(two), "norm", two)]
        return self.finding(view, two, "warning", summary, shown, step=step, nodes=[one], confidence=0.85)


def _parted(view: View, one: Parameter, two: Parameter) -> int | None:
    """The first step in which they differ; None if they do not, or were never the same."""
    first, second = view.history(one.node), view.history(two.node)
    steps, i, j = np.intersect1d(first.steps, second.steps, return_indices=True)
    if len(steps) < 2:
        return None
    equal = np.all(first.identity[i] == second.identity[j], axis=1)
    varies = first.of("std")[i[0]] > 0
    return int(steps[np.argmin(equal)]) if varies and equal[0] and not equal.all() else None
