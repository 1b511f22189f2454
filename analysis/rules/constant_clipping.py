"""The rule ``constant-clipping``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis.clipping import BEFORE_CLIPPING, Clipping, clipping
from stepscope.analysis.curves import fallen
from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.history import Values
from stepscope.analysis.parameters import learning
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class ConstantClipping(Rule):
    """Gradients are clipped in every step, far below their usual size: only their direction is left.

    Symptom: training is slow and does not react to the scale of the loss; it crawls near a minimum as fast as at the
    start.

    How it is measured: the norm of all gradients before clipping over the norm after it, in each recorded training
    step, and how constant what is left is: its norm (clipping by norm) or its largest element (by value). Gradients
    that are divided by the same number in every step (an average over micro-batches or devices) are not clipped, unless
    what is left has a norm of one digit: 0.001, say.

    Causes: a bound taken over from another net, a loss that is a sum instead of a mean, clipping before a loss scale is
    taken out.

    Remedy: look at the norm before clipping in ordinary steps, and set the bound to two or three times that; or keep
    it on purpose, as normalised gradient descent. It is a warning only where the loss hardly falls.

    Attributes:
        least: how many steps are judged at least. Source: fewer are a warm-up, in which large gradients are usual.
        share: of the steps in which gradients were clipped. Source: a bound that is meant for spikes leaves nine of
            ten steps alone.
        factor: by how much the norm is divided, in the median. Source: below, ordinary gradients are near the bound.
        spread: how far what is left may be from its median, relative to it. Source: rounding of float32 norms.
        fall: the part of the first loss that should be gone, else it did not fall well.
        rounding: how far a norm may be from a number of one digit, relative to it. Source: of ours;
            ``clip_grad_norm_`` adds a millionth to what it divides by; by chance, one norm of 250 is as near.
    """

    name = "constant-clipping"
    about = "gradients"
    causes = "A bound taken over from another net, a summed loss, or clipping before the loss scale is taken out."
    remedy = "Set the bound to two or three times the norm before clipping in ordinary steps."
    least: int = 20
    share: float = 0.95
    factor: float = 3.0
    spread: float = 1e-2
    fall: float = 0.1
    rounding: float = 5e-4

    def check(self, view: View) -> Iterable[Finding]:
        found = clipping(view)
        if found is None or len(found.steps) < self.least:
            return
        clipped = found.factors > 1.001
        how = self._bound(found, clipped)
        factor = float(np.median(found.factors))
        if how and clipped.mean() >= self.share and factor >= self.factor:
            level: Level = "warning" if fallen(view) < self.fall else "info"
            yield self._finding(view, found, int(clipped.sum()), factor, how, level)

    def _bound(self, found: Clipping, clipped: NDArray[np.bool_]) -> str:
        """By what it is bounded, in words; empty if nothing says that there is a bound."""
        if not clipped.any():
            return ""
        if _spread(found.factors[clipped]) <= self.spread:  # of gradients that stay the same, a bound says no more
            bound = float(np.median(found.after[clipped]))
            return f"to a norm of {bound:.3g}" if _is_round(bound, self.rounding) else ""
        norm, largest = _spread(found.after[clipped]), _spread(found.largest_after[clipped])
        if min(norm, largest) > self.spread:
            return ""
        if norm < largest:
            return f"to a norm of {np.median(found.after):.3g}"
        return f"to elements of at most {np.median(found.largest_after):.3g}"

    def _finding(self, view: View, found: Clipping, clipped: int, factor: float, how: str, level: Level) -> Finding:
        summary = (
            f"Gradients are clipped {how} in {clipped} of {len(found.steps)} recorded steps: their norm is "
            f"{np.median(found.before):.3g} before and {np.median(found.after):.3g} after it in the median, "
            f"{factor:.3g} times less, so that only their direction is left."
        )
        shown = [
            evidence(view.history(found.largest, BEFORE_CLIPPING), "norm", "before clipping"),
            evidence(view.history(found.largest, "gradient"), "norm", "after clipping"),
        ]
        others = [node for node in learning(view) if node != found.largest]
        return self.finding(
            view, found.largest, level, summary, shown, step=int(found.steps[0]), nodes=others, confidence=0.8
        )


def _spread(values: Values) -> float:
    """How far nine of ten values are from their median at most, relative to it."""
    middle = float(np.median(values))
    return float(np.quantile(np.abs(values - middle), 0.9)) / max(abs(middle), 1e-300)


def _is_round(value: float, rounding: float) -> bool:
    """Whether a number is one of a single digit, as bounds are, but for rounding."""
    nearest = float(f"{value:.0e}")
    return value > 0 and abs(value - nearest) <= rounding * nearest
