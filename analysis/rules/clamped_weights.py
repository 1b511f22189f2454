"""The rule ``clamped-weights``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.curves import fallen
from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.parameters import listed, trainable
from stepscope.analysis.robust import median
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class ClampedWeights(Rule):
    """Weights that something cuts off at a bound after each step.

    Symptom: the net cannot get better than simple; weights pile up at two numbers.

    How it is measured: the largest element of a weight and the smallest one are the same number with either sign, bit
    for bit the same in (almost) all recorded training steps, while the optimizer's updates are not zero.

    Causes: ``clamp_`` of parameters (not of gradients) after ``optimizer.step()``, as critics of early Wasserstein GANs
    have it.

    Remedy: clip gradients instead; for a critic, use a gradient penalty or spectral normalisation, or a wider bound. A
    net that learns is only told of it.

    Attributes:
        share: of the steps. Source: of ours; a bound that is met now and then does no harm.
        least: so many steps are needed.
    """

    name = "clamped-weights"
    about = "optimizer"
    causes = "clamp_ of the parameters after each step, instead of their gradients."
    remedy = "Clip gradients instead of weights; for a critic, use a gradient penalty or a wider bound."
    share: float = 0.9
    least: int = 10

    def check(self, view: View) -> Iterable[Finding]:
        weights = [parameter.node for parameter in trainable(view) if len(parameter.shape) > 1]
        bounds = {node: bound for node in weights if (bound := self._bound(view, node)) > 0}
        if not bounds:
            return
        first, bound = next(iter(bounds.items()))
        level: Level = "warning" if fallen(view) < _WELL else "info"
        summary = (
            f"The weights {listed(bounds)} are clamped: none is ever beyond {bound:.3g}, and the largest are exactly "
            f"that in every step, although they are updated."
        )
        shown = [evidence(view.history(first), "abs_max", "always the same")]
        step, nodes = view.began, list(bounds)[1:]
        yield self.finding(view, first, level, summary, shown, step=step, nodes=nodes, confidence=0.85)

    def _bound(self, view: View, node: str) -> float:
        """The number that a weight never leaves; 0 if there is none."""
        history, update = view.history(node), view.history(node, "update")
        if len(history) < self.least or not median(update.of("abs_max")) > 0 or _is_coarse(view, node):
            return 0.0
        largest, smallest = history.of("max"), history.of("min")
        bound = float(np.median(largest))
        at_both = (largest == bound) & (smallest == -bound)
        return bound if bound > 0 and at_both.mean() >= self.share else 0.0


def _is_coarse(view: View, node: str) -> bool:
    """Whether a weight is of half precision: there both ends of a uniform start are often one number, and stay."""
    step = view.training[0]
    row = step.layout.row(node, "value", None, None)
    return row is not None and step.layout.tensors[row].dtype in ("bfloat16", "float16")


_WELL = 0.5
"""The part of the first loss that is gone in a net that learns well."""
