"""The rule ``weight-scale``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.layers import Layer, layers
from stepscope.analysis.parameters import listed
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class WeightScale(Rule):
    """Layers that are initialised too large, too small, or with one number everywhere.

    Symptom: activations and gradients explode or vanish from the first step on; or all units of a layer stay equal.

    How it is measured: before the first update, the standard deviation of a linear or convolutional weight times
    the root of its fan-in: the gain. It is 0.58 for PyTorch's default, 1 for Glorot on square layers, 1.41 for He. Too
    small counts only if several layers are, zeros only in more than half of them: branches are often started so.

    Causes: ``normal_`` with a standard deviation that does not know the layer's width, ``constant_`` or ``ones_`` on a
    weight matrix.

    Remedy: ``nn.init.kaiming_normal_`` (ReLU) or ``nn.init.xavier_uniform_`` (tanh, sigmoid).

    Attributes:
        large, small: gains beyond which it counts. Source: three times He's gain for large; a thirtieth of
            the default's for small (GPT-2's residual layers have a sixth of it).
        several: how many layers must be too small.
    """

    name = "weight-scale"
    causes = "An initialisation that does not know the layer's width: normal_ with a fixed std, constant_, ones_."
    remedy = "Use nn.init.kaiming_normal_ (ReLU) or nn.init.xavier_uniform_ (tanh, sigmoid), or PyTorch's default."
    large: float = 4.5
    small: float = 0.02
    several: int = 2

    def check(self, view: View) -> Iterable[Finding]:
        if not view.training or view.training[0].number > 0:
            return
        gains = {layer: _gain(view, layer) for layer in layers(view)}
        equal = [layer for layer in gains if _is_equal(view, layer)]
        if equal:
            value = view.history(equal[0].weight).of("mean")[0]
            names = listed(layer.weight for layer in equal)
            text = f"All weights of {names} start at one number ({value:.3g}): their units can never differ."
            yield self._finding(view, equal, "error", text)
        zero = [layer for layer, gain in gains.items() if gain == 0 and layer not in equal]
        if len(zero) > max(1, len(gains) // 2):
            text = f"{len(zero)} of {len(gains)} layers start at zero: no signal and no gradient gets through them."
            yield self._finding(view, zero, "error", text)
        large = [layer for layer, gain in gains.items() if gain > self.large]
        if large:
            yield self._finding(view, large, "warning", self._text(view, large, gains, "too large"))
        small = [layer for layer, gain in gains.items() if 0 < gain < self.small]
        if len(small) >= self.several:
            yield self._finding(view, small, "warning", self._text(view, small, gains, "too small"))

    def _text(self, view: View, found: list[Layer], gains: dict[Layer, float], how: str) -> str:
        first = found[0]
        std = float(view.history(first.weight).of("std")[0])
        more = f"; so are {len(found) - 1} more layers" if len(found) > 1 else ""
        return (
            f"{first.weight} is initialised {how}: its std of {std:.3g} is {gains[first] / math.sqrt(2):.3g} times "
            f"that of He for {first.fan_in} inputs{more}."
        )

    def _finding(self, view: View, found: list[Layer], level: Level, summary: str) -> Finding:
        shown = [evidence(view.history(found[0].weight), "std", "its spread at the start")]
        nodes = [layer.weight for layer in found[1:]]
        return self.finding(view, found[0].weight, level, summary, shown, step=0, nodes=nodes, confidence=0.85)


def _gain(view: View, layer: Layer) -> float:
    history = view.history(layer.weight)
    return float(history.of("std")[0]) * math.sqrt(layer.fan_in) if len(history) else math.nan


def _is_equal(view: View, layer: Layer) -> bool:
    """Whether a weight with several units starts with one number other than zero everywhere."""
    history = view.history(layer.weight)
    if not len(history) or layer.shape[0] < 2 or layer.elements < 4:
        return False
    low, high = float(history.of("min")[0]), float(history.of("max")[0])
    return low == high and low != 0
