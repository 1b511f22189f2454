"""The rule ``hidden-softmax``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.hidden_activations import hidden_activations
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_SOFTMAX = frozenset(["softmax", "log_softmax"])


@dataclass(frozen=True)
class HiddenSoftmax(Rule):
    """A softmax stands where an activation of hidden units belongs.

    Symptom: the net learns slowly or hardly at all: all units of the layer share a sum of 1, so that each gets little,
    and the next layer sees almost the same numbers for every sample.

    How it is measured: a softmax between two layers with weights, whose output the second one takes directly: it is
    multiplied with nothing, as that of an attention or of a gate is.

    Causes: the activation of the output was copied to a hidden layer; one was taken for another in a configuration.

    Remedy: use a ReLU, or what the other layers have; leave the softmax to the loss.

    Source: DeepLocalize (Wardat et al., ICSE 2021) and DeepCrime (Humbatova et al., ISSTA 2021), changed activations.
    """

    name = "hidden-softmax"
    causes = "The activation of the output was copied to a hidden layer, or one was taken for another."
    remedy = "Use a ReLU, or the activation that the other layers have; leave the softmax to the loss."

    def check(self, view: View) -> Iterable[Finding]:
        if not view.training:
            return
        for hidden in hidden_activations(view, _SOFTMAX):
            yield self._finding(view, hidden.place, hidden.before, hidden.after)

    def _finding(self, view: View, place: Place, before: Place, after: Place) -> Finding:
        summary = (
            f"{place.node} is a softmax between the layers {before.node} and {after.node}: all units together are 1, "
            f"so that each gets little, and the next layer sees hardly any difference between samples."
        )
        shown = [evidence(view.history(place.node, role=place.role), "std", "how much its units differ")]
        return self.finding(
            view, place.node, "warning", summary, shown,
            step=view.began, nodes=[before.node, after.node], confidence=0.7,
        )  # fmt: skip
