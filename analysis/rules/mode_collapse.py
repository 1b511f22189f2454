"""The rule ``mode-collapse``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.neurons import tensor_of
from stepscope.analysis.optimizers import watched
from stepscope.analysis.robust import median
from stepscope.analysis.rule import Rule
from stepscope.analysis.spread import neuron_moments
from stepscope.analysis.units import late_steps
from stepscope.analysis.view import View, evidence
from stepscope.store import Step


@dataclass(frozen=True)
class ModeCollapse(Rule):
    """A generator makes almost the same for every sample, while the data vary.

    Symptom: all pictures look alike.

    How it is measured: with two watched optimizers: the spread over the batch of what one model makes, feature
    by feature, against that of an input of the same shape (the real data), in the last third of the training.

    Causes: a critic that judges samples one by one and is fooled by a single good one; too fast a generator.

    Remedy: a lower learning rate for the generator, minibatch discrimination, a Wasserstein loss with gradient penalty.

    Attributes:
        ratio: between the two spreads. Source: of ours; generators that work come near to 1.
    """

    name = "mode-collapse"
    causes = "A critic that is fooled by a single good sample; a generator that learns too fast for it."
    remedy = "Let the generator learn more slowly; use minibatch discrimination or a Wasserstein loss with a penalty."
    ratio: float = 0.1

    def check(self, view: View) -> Iterable[Finding]:
        steps = late_steps(view)
        if len(watched(view)) < 2 or len(steps) < 3:
            return
        inputs = view.flow.of_type("input")
        for made in _outputs(view):
            for real in inputs:
                ratio = median(np.array([_ratio(step, made, real) for step in steps]))
                if ratio < self.ratio:
                    yield self._finding(view, made, real, ratio)

    def _finding(self, view: View, made: Place, real: Place, ratio: float) -> Finding:
        history = view.history(made.node, role=made.role)
        summary = f"{made.node} hardly varies: its spread over the batch is {ratio:.1%} of that of {real.node}."
        shown = [evidence(history, "std", "its spread"), evidence(view.history(real.node), "std", "that of the data")]
        return self.finding(
            view, made.node, "warning", summary, shown, step=int(history.steps[0]), nodes=[real.node], confidence=0.7
        )


def _outputs(view: View) -> list[Place]:
    """The outputs of whole models that enter another model."""
    found = []
    for place, vertex in view.flow.vertices.items():
        if vertex.type == "calculated" and vertex.module == place.node and "." not in place.node:
            behind = {view.flow.vertices[other].module.partition(".")[0] for other in view.flow.downstream([place])}
            if len(behind - {"", place.node}) > 0:
                found.append(place)
    return found


def _ratio(step: Step, made: Place, real: Place) -> float:
    one, two = tensor_of(step, made), tensor_of(step, real)
    if one is None or two is None or one.shape[1:] != two.shape[1:] or "float" not in two.info.dtype:
        return float("nan")
    first, second = neuron_moments(step, made), neuron_moments(step, real)
    if first is None or second is None:
        return float("nan")
    spread = float(np.sqrt(np.mean(second[1] ** 2)))
    return float(np.sqrt(np.mean(first[1] ** 2))) / spread if spread > 0 else float("nan")
