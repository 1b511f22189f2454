"""The rule ``learning-rate``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.curves import fallen, loss_curves
from stepscope.analysis.finding import Evidence, Finding
from stepscope.analysis.layers import Layer, layers, update_ratio
from stepscope.analysis.optimizers import settings
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_FIRST = 5


@dataclass(frozen=True)
class LearningRate(Rule):
    """Updates that are far too large, or far too small, for the weights they change.

    Symptom: too large: the loss jumps about, rises, or settles early; too small: it hardly moves.

    How it is measured: the norm of the update over the norm of the weight, in the median of the training steps (or of
    the first five, before weights that explode hide it) and then of the layers. About 1e-3 is usual. An alarm needs a
    loss that says the same: it did not fall well; only ratios beyond any use are told without it.

    Causes: a learning rate taken over from another optimizer or size of net; weights of an unusual scale.

    Remedy: change the learning rate by the factor that brings the ratio to 1e-3; then look again.

    Attributes:
        large: the ratio above which weights are replaced within ten steps. Source: a hundred times the usual 1e-3
            (Karpathy's rule of thumb); smdebug's 10 is no bound in practice.
        absurd: the ratio that is told even if the loss falls.
        small: the ratio below which a thousand steps change one percent. Source: a hundredth of the usual 1e-3.
        fall: the part of the first loss that should be gone, else it did not fall well.
    """

    name = "learning-rate"
    about = "optimizer"
    causes = "A learning rate that does not fit the optimizer, the size of the net, or the scale of its weights."
    remedy = "Change the learning rate so that updates are about a thousandth of the weights, and look again."
    large: float = 0.1
    absurd: float = 0.5
    small: float = 1e-5
    fall: float = 0.1

    def check(self, view: View) -> Iterable[Finding]:
        if any("max_iter" in group for group in settings(view)):  # LBFGS: a step is many steps
            return
        known = [(layer, update_ratio(view, layer)) for layer in layers(view)]
        known = [(layer, ratios) for layer, ratios in known if len(ratios) >= 3]
        if not known:
            return
        ratio, layer = _middle((float(np.median(ratios)), layer) for layer, ratios in known)
        early, _ = _middle((float(np.median(ratios[:_FIRST])), layer) for layer, ratios in known)
        part = fallen(view)
        if ratio > self.absurd or (max(ratio, early) > self.large and part < self.fall):
            yield self._finding(view, layer.weight, max(ratio, early), part, "high")
        elif ratio < self.small and part < self.fall:
            yield self._finding(view, layer.weight, ratio, part, "low")

    def _finding(self, view: View, weight: str, ratio: float, part: float, how: str) -> Finding:
        rates = sorted({f"{rate:g}" for rate in _rates(view)})
        told = f" of {', '.join(rates)}" if rates else ""
        loss = "the loss has not fallen" if part <= 0 else f"the loss fell by {part:.1%}"
        summary = (
            f"The learning rate{told} is too {how}: a step changes the weights by {ratio:.1g} of their size (in the "
            f"median; {weight} is in the middle), where 0.001 is usual; {loss}."
        )
        update = view.history(weight, "update")
        first, last = int(update.steps[0]), int(update.steps[-1])
        ratio_curve = Evidence(weight, None, "update", "ratio", None, first, last, f"{ratio:.1g} in the median")
        shown = [ratio_curve, *(evidence(curve.history, "mean", "the loss") for curve in list(loss_curves(view))[:1])]
        return self.finding(view, weight, "warning", summary, shown, step=view.training[0].number, confidence=0.8)


def _middle(entries: Iterable[tuple[float, Layer]]) -> tuple[float, Layer]:
    """The entry in the middle, by its number."""
    ordered = sorted(entries, key=lambda entry: entry[0])
    return ordered[len(ordered) // 2]


def _rates(view: View) -> Iterable[float]:
    return (float(group["lr"]) for group in settings(view) if isinstance(group.get("lr"), (int, float)))
