"""The rule ``shrinking-weights``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from stepscope.analysis.finding import Finding
from stepscope.analysis.layers import Layer, layers
from stepscope.analysis.optimizers import settings
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class ShrinkingWeights(Rule):
    """Weight decay pulls most weights towards zero faster than they can learn.

    Symptom: outputs become constant, the loss settles high, whatever the learning rate.

    How it is measured: the norm of each layer's weight in the last training step against that of the first; it counts
    if most layers lost most of it. Or the optimizer's settings say that decay takes too much in every step.

    Causes: a weight decay (or L2 term) that is too large for the learning rate, or counted once in the loss and once in
    the optimizer.

    Remedy: lower the weight decay (1e-4 to 1e-2 are usual), or use AdamW, which keeps it apart from the gradient.

    Attributes:
        left: the part of the norm that is left. Source: layers that learn grow, or keep most of their norm, in all our
            healthy runs.
        share: of the layers.
        taken: the part of the weights that is taken away in a step (learning rate times weight decay, as the settings
            of the optimizer say). Source: at 0.01 weights forget in a hundred steps; 1e-3 times 1e-2 is usual.
    """

    name = "shrinking-weights"
    about = "optimizer"
    causes = "A weight decay (or an L2 term in the loss) that is too large, or that is counted twice."
    remedy = "Lower the weight decay (1e-4 to 1e-2 are usual)."
    left: float = 0.3
    share: float = 0.6
    taken: float = 0.01

    def check(self, view: View) -> Iterable[Finding]:
        known = [layer for layer in layers(view) if len(view.history(layer.weight)) >= 3]
        taken = max((_taken(group) for group in settings(view)), default=0.0)
        if known and taken >= self.taken:
            yield self._by_settings(view, known, taken)
            return
        parts = {layer: _left(view, layer) for layer in known}
        shrunk = [layer for layer in known if parts[layer] < self.left]
        if shrunk and len(shrunk) >= self.share * len(known):
            worst = min(shrunk, key=lambda layer: parts[layer])
            norms = view.history(worst.weight).of("norm")
            summary = (
                f"The weights of {len(shrunk)} of {len(known)} layers shrink away: the norm of {worst.weight} goes "
                f"from {norms[0]:.3g} to {norms[-1]:.3g}."
            )
            shown = [evidence(view.history(worst.weight), "norm", f"{parts[worst]:.0%} of it is left")]
            yield self.finding(
                view, worst.weight, "warning", summary, shown, step=view.training[0].number, confidence=0.8,
                nodes=[layer.weight for layer in shrunk if layer != worst],
            )  # fmt: skip

    def _by_settings(self, view: View, known: Sequence[Layer], taken: float) -> Finding:
        layer, *others = known
        norms = view.history(layer.weight).of("norm")
        summary = (
            f"Weight decay takes {taken:.1%} of the weights away in every step: the norm of {layer.weight} goes from "
            f"{norms[0]:.3g} to {norms[-1]:.3g}."
        )
        shown = [evidence(view.history(layer.weight), "norm", "the norm of the first layer")]
        return self.finding(
            view, layer.weight, "warning", summary, shown, step=view.training[0].number, confidence=0.8,
            nodes=[other.weight for other in others],
        )  # fmt: skip


def _taken(group: dict[str, Any]) -> float:
    """The part of the weights that weight decay takes away in a step; Adam without decoupling rescales it."""
    rate, decay = group.get("lr"), group.get("weight_decay")
    if not isinstance(rate, (int, float)) or not isinstance(decay, (int, float)):
        return 0.0
    rescaled = "betas" in group and not group.get("decoupled_weight_decay", False)
    return 0.0 if rescaled else float(rate) * float(decay)


def _left(view: View, layer: Layer) -> float:
    norms = view.history(layer.weight).of("norm")
    return float(norms[-1] / norms[0]) if norms[0] > 0 else 1.0
