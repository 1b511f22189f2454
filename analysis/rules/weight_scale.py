"""The rule ``weight-scale``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stepscope.analysis.baseline import baselines
from stepscope.analysis.curves import fallen, loss_curves
from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.first_signal import amplifiers, fading
from stepscope.analysis.layers import Layer, hand_made_layers, layers
from stepscope.analysis.parameters import is_gradient_zero, listed, trainable
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_RECURRENT = re.compile(r"weight_[ih]h")


@dataclass(frozen=True)
class WeightScale(Rule):
    """Layers that are initialised too large, too small, or with one number everywhere.

    Symptom: activations and gradients explode or vanish from the first step on; or all units of a layer stay equal.

    How it is measured: before the first update, the standard deviation of a linear or convolutional weight times
    the root of its fan-in: the gain. It is 0.58 for PyTorch's default, 1 for Glorot on square layers, 1.41 for He. Too
    small counts only if several layers are, zeros only in more than half of them: branches are often started so.
    A small gain adds up over the depth, and a recurrent one over time: layers that are too small for the samples to
    differ behind the last of them, and modules that make what goes in many times larger, count too. So do matrices
    made by hand whose sizes fit each other, as in ``x @ w1 @ w2``, if they are too large; and several that are zero
    from the start to the end, and so are their gradients.

    Causes: ``normal_`` with a standard deviation that does not know the layer's width, ``constant_`` or ``ones_`` on a
    weight matrix.

    Remedy: ``nn.init.kaiming_normal_`` (ReLU) or ``nn.init.xavier_uniform_`` (tanh, sigmoid).

    Attributes:
        large, small: gains beyond which it counts. Source: three times He's gain for large; a thirtieth of
            the default's for small (GPT-2's residual layers have a sixth of it).
        several: how many layers must be too small.
        weak: the gain of layers that are too small together, if ``left`` says so. Source: a third of the default's.
        left: the part of the difference between samples that comes through to the last layer. Source: 0.015 and more
            in all healthy runs.
        fall: large layers are worth knowing only if the loss begins no higher than that of a constant answer and loses
            this part of its start: the targets are as large, then; or if it begins no higher than twice that of
            zeros and goes to infinity, which is the steps' doing. Source: of ours.
        amplified: the factor by which the output of a module may exceed its input. Source: healthy modules have up to
            2; cosines that are multiplied by a scale, as contrastive nets learn it, have 20.
    """

    name = "weight-scale"
    causes = "An initialisation that does not know the layer's width: normal_ with a fixed std, constant_, ones_."
    remedy = "Use nn.init.kaiming_normal_ (ReLU) or nn.init.xavier_uniform_ (tanh, sigmoid), or PyTorch's default."
    large: float = 4.5
    small: float = 0.02
    several: int = 2
    weak: float = 0.2
    left: float = 1e-3
    fall: float = 0.5
    amplified: float = 100.0

    def check(self, view: View) -> Iterable[Finding]:
        if not view.training or view.began > 0:
            return
        gains = {layer: _gain(view, layer) for layer in layers(view)}
        equal = [
            layer for layer in (*gains, *_others(view)) if _is_equal(view, layer) and not _has_partner(view, layer)
        ]
        if equal:
            value = view.history(equal[0].weight).of("mean")[0]
            names = listed(layer.weight for layer in equal)
            text = f"All weights of {names} start at one number ({value:.3g}): their units can never differ."
            yield self._finding(view, equal, "error", text)
        yield from self._of_the_wrong_size(view, gains, equal)
        yield from self._stuck_at_zero(view, gains)

    def _stuck_at_zero(self, view: View, gains: dict[Layer, float]) -> Iterable[Finding]:
        """Matrices made by hand whose gradients are products with each other, and zero like themselves."""
        made = [layer for layer in _others(view) if layer not in gains and not _RECURRENT.search(layer.weight)]
        stuck = [layer for layer in made if is_gradient_zero(view, layer.weight) and _is_zero(view, layer)]
        if len(stuck) > 1:
            names = listed(layer.weight for layer in stuck)
            text = (
                f"{names} start at zero, all of them, and stay there: the gradient of each is a product with another, "
                f"and zero. They were never initialised."
            )
            yield self._finding(view, stuck, "error", text)

    def _of_the_wrong_size(self, view: View, gains: dict[Layer, float], equal: Sequence[Layer]) -> Iterable[Finding]:
        recurrent = {layer: _gain(view, layer) for layer in _others(view) if _RECURRENT.search(layer.weight)}
        weights = {**gains, **recurrent}
        zero = [layer for layer, gain in weights.items() if gain == 0 and layer not in equal]
        if len(zero) > max(1, len(weights) // 2):
            text = f"{len(zero)} of {len(weights)} layers start at zero: no signal and no gradient gets through them."
            yield self._finding(view, zero, "error", text)
        every = {**gains, **{layer: gain for layer, gain in recurrent.items() if "weight_hh" in layer.weight}}
        every |= {layer: _gain(view, layer) for layer in hand_made_layers(view)}
        large = [layer for layer, gain in every.items() if gain > self.large]
        if large:
            level: Level = "info" if self._is_harmless(view) else "warning"
            yield self._finding(view, large, level, self._text(view, large, every, "too large"))
        else:
            yield from self._amplifying(view)
        small = [layer for layer, gain in gains.items() if 0 < gain < self.small]
        weak = [layer for layer, gain in gains.items() if 0 < gain < self.weak]
        left = fading(view, list(gains)) if len(weak) >= self.several else math.nan
        if left < self.left:
            text = f" Behind the last layer, {left:.1g} of the difference between samples is left."
            yield self._finding(view, weak, "warning", self._text(view, weak, gains, "too small") + text)
        elif len(small) >= self.several:
            yield self._finding(view, small, "warning", self._text(view, small, gains, "too small"))

    def _is_harmless(self, view: View) -> bool:
        """Whether the loss begins no higher than that of a constant answer, and falls.

        If it goes to infinity from outputs that were no larger than the targets, it is by what the steps did.
        """
        known, curves = [b for b in baselines(view) if math.isfinite(b.constant)], list(loss_curves(view))
        if len(known) != 1 or len(curves) != 1:
            return False
        if view.broken:
            return curves[0].low_start <= 2 * known[0].start
        return curves[0].start <= known[0].constant and fallen(view) >= self.fall

    def _amplifying(self, view: View) -> Iterable[Finding]:
        strong = [one for one in amplifiers(view) if one.factor > self.amplified]
        if not strong:
            return
        first = min(strong, key=lambda one: view.position.get(one.module, 0))
        over = f", over {first.calls} calls" if first.calls > 2 else ""
        summary = (
            f"{first.module} is initialised too large: its output is {first.factor:.3g} times as large as what goes "
            f"in{over}, before anything is learned."
        )
        weights = [parameter.node for parameter in trainable(view) if parameter.module == first.module]
        shown = [evidence(view.history(first.module), "abs_max", "its output")]
        yield self.finding(
            view, first.module, "warning", summary, shown, step=0, confidence=0.75,
            nodes=[*weights, *(one.module for one in strong if one != first)],
        )  # fmt: skip

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


def _has_partner(view: View, layer: Layer) -> bool:
    """Whether its module has another weight of its shape that varies: a deviation of each weight, beside their mean."""
    partners = (p for p in trainable(view) if p.module == layer.module and p.shape == layer.shape)
    firsts = (view.history(p.node).of("std") for p in partners if p.node != layer.weight)
    return any(len(first) > 0 and first[0] > 0 for first in firsts)


def _others(view: View) -> list[Layer]:
    """Weights of two or more dimensions that belong to no plain layer: recurrent ones, and parameters by hand."""
    known = {layer.weight for layer in layers(view)}
    return [
        Layer(parameter.module, parameter.module_class, parameter.node, parameter.shape, parameter.shape[-1])
        for parameter in trainable(view)
        if parameter.node not in known
        and sum(size > 1 for size in parameter.shape) > 1
        and not parameter.module_class.startswith("Embedding")
    ]


def _gain(view: View, layer: Layer) -> float:
    history = view.history(layer.weight)
    return float(history.of("std")[0]) * math.sqrt(layer.fan_in) if len(history) else math.nan


def _is_zero(view: View, layer: Layer) -> bool:
    """Whether a weight is zero in all recorded steps."""
    history = view.history(layer.weight)
    return len(history) > 0 and not history.of("abs_max").any()


def _is_equal(view: View, layer: Layer) -> bool:
    """Whether a weight with several units starts with one number other than zero everywhere."""
    history = view.history(layer.weight)
    if not len(history) or layer.shape[0] < 2 or layer.elements < 4:
        return False
    low, high = float(history.of("min")[0]), float(history.of("max")[0])
    return low == high and low != 0
