"""The rule ``optimizer-reset``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.optimizers import settings
from stepscope.analysis.parameters import learning
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_LEAST = 10


@dataclass(frozen=True)
class OptimizerReset(Rule):
    """The optimizer forgets its state in every step, as if it were made anew each time.

    Symptom: momentum has no effect; Adam moves every weight by the same amount, whatever the size of its gradient.

    How it is measured: momentum is a running sum of gradients. Where its norm is that of the present gradient alone,
    times the weight that a first step gives it (``1 - beta1`` for Adam, 1 for SGD), in (almost) all recorded steps and
    for all parameters, nothing is left of the steps before.

    Causes: the optimizer is made inside the loop, its state is cleared or loaded from an old checkpoint in every step.

    Remedy: make the optimizer once, before the loop, and leave its state alone.

    Attributes:
        share: of the steps. Source: one where no step before had a gradient is the first one only.
        tolerance: of the equality, relative. Source: rounding of float32 norms; gradients that happen to agree with
            their running mean in size do so once in a while, to a percent.
    """

    name = "optimizer-reset"
    about = "optimizer"
    causes = "The optimizer is made inside the loop, or its state is cleared, or loaded again, in every step."
    remedy = "Make the optimizer once, before the loop, and leave its state alone."
    share: float = 0.95
    tolerance: float = 1e-3

    def check(self, view: View) -> Iterable[Finding]:
        shares = {node: self._share(view, node) for node in learning(view)}
        known = {node: share for node, share in shares.items() if np.isfinite(share)}
        if known and min(known.values()) >= self.share:
            yield self._finding(view, list(known))

    def _share(self, view: View, node: str) -> float:
        """The share of steps in which the momentum is that of a first step; NaN if nothing can be said."""
        gradient = view.history(node, "gradient")
        for state, weight in _first_weights(view).items():
            momentum = view.history(node, state)
            if len(momentum) < _LEAST or not np.array_equal(momentum.steps, gradient.steps):
                continue
            norms, own = momentum.of("norm")[1:], weight * gradient.of("norm")[1:]
            telling = own > 0
            if telling.sum() >= _LEAST - 1:
                alone = np.abs(norms - own)[telling] <= self.tolerance * own[telling]
                return float(np.mean(alone))
        return float("nan")

    def _finding(self, view: View, nodes: list[str]) -> Finding:
        state = next(state for state in _first_weights(view) if len(view.history(nodes[0], state)))
        momentum = view.history(nodes[0], state)
        summary = (
            f"The optimizer's state is made anew in every step: {state} of {nodes[0]}, and of {len(nodes) - 1} more "
            f"parameters, holds the present gradient alone, in all of {len(momentum)} recorded steps."
        )
        shown = [
            evidence(momentum, "norm", "the momentum"),
            evidence(view.history(nodes[0], "gradient"), "norm", "the gradient of the step"),
        ]
        return self.finding(
            view, nodes[0], "warning", summary, shown, step=view.training[0].number, nodes=nodes[1:], confidence=0.9
        )


def _first_weights(view: View) -> dict[str, float]:
    """By the name of an optimizer's state: the weight that it gives to the gradient of its very first step."""
    found: dict[str, float] = {}
    for group in settings(view):
        beta = _beta(group)
        if beta is not None and 0 < beta < 1:
            found["exp_avg"] = 1 - beta
        elif group.get("momentum"):
            found["momentum_buffer"] = 1.0
    return found


def _beta(group: dict[str, Any]) -> float | None:
    betas = group.get("betas")
    return float(betas[0]) if isinstance(betas, (list, tuple)) and betas else None
