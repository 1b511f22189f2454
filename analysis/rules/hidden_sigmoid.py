"""The rule ``hidden-sigmoid``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.hidden_activations import hidden_activations
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class HiddenSigmoid(Rule):
    """Several hidden layers have a sigmoid for an activation.

    Symptom: a net that learns slowly, the first layers last, and the slower the deeper it is.

    How it is measured: sigmoids between two layers with weights that are multiplied with nothing, as gates are. It is
    worth knowing, not a mistake by itself.

    Causes: the activation of a binary output was copied to the hidden layers; an old recipe.

    Remedy: use a ReLU (with weights as of He), or a tanh, which at least has a mean of zero.

    Attributes:
        least: sigmoids one behind the other. Source: each one lets a quarter of a gradient through at most, and its
            mean of 0.5 drives the next ones into their ends (Glorot and Bengio, 2010).
    """

    name = "hidden-sigmoid"
    causes = "The activation of a binary output was copied to the hidden layers, or an old recipe was followed."
    remedy = "Use a ReLU with weights initialised for it (He), or a tanh."
    least: int = 2

    def check(self, view: View) -> Iterable[Finding]:
        places = list(dict.fromkeys(hidden.place for hidden in hidden_activations(view, ("sigmoid",))))
        if not view.training or len(places) < self.least:
            return
        first = places[0]
        summary = (
            f"{len(places)} hidden layers, {first.node} first, have a sigmoid for an activation: each lets a quarter "
            f"of a gradient through at most, and none of its outputs is negative."
        )
        shown = [evidence(view.history(first.node, role=first.role), "mean", "near 0.5")]
        yield self.finding(
            view, first.node, "info", summary, shown,
            step=view.began, nodes=[place.node for place in places[1:]], confidence=0.6,
        )  # fmt: skip
