"""The rule ``missing-bias``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.layers import layers
from stepscope.analysis.parameters import listed, trainable
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class MissingBias(Rule):
    """No layer of a net has a bias, and nothing else in it adds a number.

    Symptom: the net answers zeros to zeros, and, with ReLU, the same class however far a point is from the origin.

    How it is measured: by the parameters: several linear or convolutional layers, none of which has a bias, and no
    vector that learns anywhere (that of a normalisation, say), nor a table.

    Causes: ``bias=False`` taken over from a net with normalisations, where a bias would be of no use.

    Remedy: leave ``bias=True``, at least in the last layer.

    Source: the operator "remove bias" of DeepCrime (Humbatova et al. 2021); no threshold.

    Attributes:
        several: from so many layers on.
    """

    name = "missing-bias"
    causes = "bias=False was taken over from a net with normalisations, where a bias would be of no use."
    remedy = "Leave bias=True, at least in the last layer, if zeros need not be answered by zeros."
    several: int = 2

    def check(self, view: View) -> Iterable[Finding]:
        found = layers(view)
        weights = {layer.weight for layer in found}
        if len(found) < self.several or any(parameter.node not in weights for parameter in trainable(view)):
            return
        names = [layer.module for layer in found]
        summary = (
            f"None of the {len(found)} layers has a bias ({listed(names)}), and nothing else adds to what they give: "
            f"zeros are always answered by zeros."
        )
        shown = [evidence(view.history(names[-1]), "mean", "the output without a bias")]
        step = view.began if view.training else None
        yield self.finding(view, names[0], "info", summary, shown, step=step, nodes=names[1:], confidence=0.5)
