"""The rule ``missing-bias``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.layers import layers
from stepscope.analysis.loss_inputs import comparisons
from stepscope.analysis.parameters import listed, trainable
from stepscope.analysis.robust import largest, median
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
        off: of a single layer, if fewer of its answers of yes or no are yes, or no. Source: of ours; a half needs none.
    """

    name = "missing-bias"
    causes = "bias=False was taken over from a net with normalisations, where a bias would be of no use."
    remedy = "Leave bias=True, at least in the last layer, if zeros need not be answered by zeros."
    several: int = 2
    off: float = 0.3

    def check(self, view: View) -> Iterable[Finding]:
        found = layers(view)
        weights = {layer.weight for layer in found}
        if any(parameter.node not in weights for parameter in trainable(view)):
            return
        if len(found) < self.several and not (found and self._is_off(view)):
            return
        names = [layer.module for layer in found]
        none = f"None of the {len(found)} layers has" if len(found) > 1 else "The only layer lacks"
        summary = (
            f"{none} a bias ({listed(names)}), and nothing else adds to what is given: zeros are always answered by "
            f"zeros."
        )
        shown = [evidence(view.history(names[-1]), "mean", "the output without a bias")]
        step = view.began if view.training else None
        yield self.finding(view, names[0], "info", summary, shown, step=step, nodes=names[1:], confidence=0.5)

    def _is_off(self, view: View) -> bool:
        """Whether targets of yes or no are mostly one of them, which an output around zero does not say."""
        targets = [comparison.target for comparison in comparisons(view) if comparison.target is not None]
        for history in (view.history(target.node, role=target.role) for target in targets):
            share = median(history.of("mean"))
            spread = median(history.of("std"))
            is_binary = abs(spread**2 - share * (1 - share)) < 0.01 and largest(history.of("max")) == 1
            if is_binary and not self.off < share < 1 - self.off:
                return True
        return False
