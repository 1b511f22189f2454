"""The rule ``rounded-updates``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.parameters import listed, trainable
from stepscope.analysis.robust import median
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_DIGITS = {"bfloat16": 2.0**-8, "float16": 2.0**-11}
"""The part of a number by which the next larger one differs, at least: half of it is rounded away."""
_FEWEST = 3


@dataclass(frozen=True)
class RoundedUpdates(Rule):
    """Weights of sixteen bits, to which an optimizer's updates are too small to be added.

    Symptom: the loss falls far more slowly than with weights of float32, or stays where it is.

    How it is measured: the share of a weight's elements that a step leaves exactly as they were, although their
    gradient is not zero, in the median of the steps and of all weights of such a dtype. A number of bfloat16 has eight
    bits: it changes by a 256th of itself, or not at all, where a thousandth is a usual update.

    Causes: ``model.to(torch.bfloat16)`` or ``model.half()`` before the optimizer was made, where autocast was meant.

    Remedy: keep the weights in float32 and compute in sixteen bits (``torch.autocast``), let the optimizer keep a
    float32 copy of them, or round at random.

    Attributes:
        lost: the share of the elements that stay as they are. Source: of ours; of float32 hardly any does.
    """

    name = "rounded-updates"
    about = "optimizer"
    causes = "model.to(torch.bfloat16), or model.half(), where autocast was meant."
    remedy = "Keep weights in float32 and compute in torch.autocast, or let the optimizer keep a float32 copy."
    lost: float = 0.5

    def check(self, view: View) -> Iterable[Finding]:
        known = {node: share for node in _of_sixteen_bits(view) if (share := _lost(view, node)) >= 0}
        share = median(np.array(list(known.values())))
        if not share >= self.lost:
            return
        nodes = [node for node, lost in known.items() if lost >= self.lost]
        dtype = _dtypes(view)[nodes[0]]
        summary = (
            f"Most updates are lost to rounding: a step leaves {share:.0%} of the elements of "
            f"{listed(nodes)} as they were, although they have gradients. The weights are {dtype}, in which a number "
            f"changes by {_DIGITS[dtype]:.1g} of itself at least: smaller updates are too small to change it."
        )
        shown = [evidence(view.history(nodes[0], "update"), "zero_fraction", "the share that stays as it is")]
        step = view.began
        yield self.finding(view, nodes[0], "warning", summary, shown, step=step, nodes=nodes[1:], confidence=0.85)


def _of_sixteen_bits(view: View) -> list[str]:
    dtypes = _dtypes(view)
    return [parameter.node for parameter in trainable(view) if dtypes.get(parameter.node) in _DIGITS]


def _dtypes(view: View) -> dict[str, str]:
    tensors = view.training[-1].layout.tensors if view.training else ()
    return {tensor.node: tensor.dtype for tensor in tensors if tensor.quantity == "value"}


def _lost(view: View, node: str) -> float:
    """The share of its elements that a step leaves alone although they have a gradient; -1 if that is not known."""
    update, gradient = view.history(node, "update"), view.history(node, "gradient")
    if len(update) < _FEWEST or len(gradient) < _FEWEST:
        return -1.0
    return max(0.0, median(update.of("zero_fraction")) - median(gradient.of("zero_fraction")))
