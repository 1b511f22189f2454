"""The rule ``shrinking-weights``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stepscope.analysis.curves import fallen
from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.layers import Layer, layers
from stepscope.analysis.optimizers import held_by, settings
from stepscope.analysis.parameters import listed
from stepscope.analysis.robust import median
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_LEAST = 10
_SCALED = 1e-3


@dataclass(frozen=True)
class ShrinkingWeights(Rule):
    """Weight decay pulls most weights towards zero faster than they can learn.

    Symptom: outputs become constant, the loss settles high, whatever the learning rate.

    How it is measured: the norm of each layer's weight in the last training step against that of the first; it counts
    if most layers lost most of it. Or the optimizer's settings say that decay takes too much in every step; that is
    worth knowing only where most layers grow all the same. Optimizers that add the decay to the gradient and then
    rescale both (Adam, RMSprop, Adagrad and their kin) are judged by their sum: decay times weight against the
    gradient, in the median of the layers, from the second third on.

    Or what an optimizer holds has no gradient, from some step on, and all of it becomes smaller by one factor: decay is
    applied to what nothing trains.

    Causes: a weight decay (or L2 term) that is too large for the learning rate, or counted once in the loss and once in
    the optimizer.

    Remedy: lower the weight decay (1e-4 to 1e-2 are usual), or use AdamW, which keeps it apart from the gradient.

    Attributes:
        faded: the part of the norm that is left of what has no gradient. Source: of ours; a tenth is felt.
        left: the part of the norm that is left. Source: layers that learn grow, or keep most of their norm, in all our
            healthy runs.
        share: of the layers.
        taken: the part of the weights that is taken away in a step (learning rate times weight decay, as the settings
            of the optimizer say). Source: at 0.01 weights forget in a hundred steps; 1e-3 times 1e-2 is usual.
        decoupled: a decay from here on is one of AdamW, which is meant to be multiplied by the learning rate. Source:
            recipes have 0.01 to 0.1 for AdamW, 1e-5 to 5e-4 for an L2 term (Loshchilov and Hutter 2019).
        against: the decay as a part of the gradient it is added to, from which on it drives the weights.
        learned: the part of the first loss that is gone where that is worth knowing only. Source: of ours.
    """

    name = "shrinking-weights"
    about = "optimizer"
    causes = "A weight decay (or an L2 term in the loss) that is too large, or that is counted twice."
    remedy = "Lower the weight decay (1e-4 to 1e-2 are usual)."
    faded: float = 0.9
    left: float = 0.3
    share: float = 0.6
    taken: float = 0.01
    decoupled: float = 0.005
    against: float = 0.5
    learned: float = 0.5

    def check(self, view: View) -> Iterable[Finding]:
        yield from self._without_gradients(view)
        known = [layer for layer in layers(view) if len(view.history(layer.weight)) >= 3]
        taken = max((_taken(group) for group in settings(view)), default=0.0)
        if known and taken >= self.taken:
            yield self._by_settings(view, known, taken)
            return
        mixed = self._mixed(view, known)
        if mixed is not None:
            yield mixed
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
                view, worst.weight, "warning", summary, shown, step=view.began, confidence=0.8,
                nodes=[layer.weight for layer in shrunk if layer != worst],
            )  # fmt: skip

    def _without_gradients(self, view: View) -> Iterable[Finding]:
        """Weights that get no gradient, as they are frozen now or not in use, and fade in every step all the same."""
        held = [node for node, names in held_by(view).items() if names]
        since = {node: step for node in held if (step := self._fades_since(view, node)) is not None}
        if not since:
            return
        nodes = sorted(since, key=lambda node: view.position.get(node, 0))
        norms = view.history(nodes[0])
        before = norms.of("norm")[norms.steps >= since[nodes[0]]]
        summary = (
            f"Weights shrink without a gradient: {listed(nodes)} have none from step {since[nodes[0]]} on, and are "
            f"multiplied by the same number below 1 in every step (weight decay): the norm of {nodes[0]} goes from "
            f"{before[0]:.3g} to {before[-1]:.3g}."
        )
        yield self.finding(
            view, nodes[0], "warning", summary, [evidence(norms, "norm", "fades, although nothing trains it")],
            step=min(since.values()), nodes=nodes[1:], confidence=0.85,
            causes="An optimizer that applies its decay to what has no gradient, or a decay written by hand.",
            remedy="Leave out parameters whose gradient is None, as torch's optimizers do.",
        )  # fmt: skip

    def _fades_since(self, view: View, node: str) -> int | None:
        """The step from which on a parameter has no gradient, and only becomes smaller as a whole."""
        value, gradient = view.history(node), view.history(node, "gradient")
        last = int(gradient.steps[-1]) if len(gradient) else -1
        mine = value.steps > last
        norms, peaks = value.of("norm")[mine], value.of("abs_max")[mine]
        if len(norms) < _LEAST or not norms[-1] < self.faded * norms[0] or not np.all(np.diff(norms) < 0):
            return None
        shape = peaks / norms  # what is only scaled keeps it
        return int(value.steps[mine][0]) if np.ptp(shape) < _SCALED * shape[0] else None

    def _mixed(self, view: View, known: Sequence[Layer]) -> Finding | None:
        """A decay that becomes most of the gradient, and is rescaled with it."""
        decay = max((_added(group) for group in settings(view)), default=0.0)
        parts = {layer: decay * part for layer in known if (part := _against_gradient(view, layer)) > 0}
        usual = float(np.median(list(parts.values()))) if parts and decay >= self.decoupled else 0.0
        if usual < self.against:
            return None
        worst = max(parts, key=lambda layer: parts[layer])
        summary = (
            f"Weight decay ({decay:g}) is added to the gradients and rescaled with them: it is {usual:.2g} times as "
            f"large as they are (in the median of the layers), so that it drives the weights. This optimizer does not "
            f"keep it apart, as AdamW does."
        )
        shown = [evidence(view.history(worst.weight, "gradient"), "norm", "the gradient, without the decay")]
        level: Level = "info" if fallen(view) > self.learned else "warning"
        return self.finding(
            view, worst.weight, level, summary, shown, step=view.began, confidence=0.85,
            nodes=[layer.weight for layer in known if layer != worst],
            causes="The weight decay of an AdamW recipe, given to an optimizer that takes it for an L2 term.",
            remedy="Use AdamW (or decoupled_weight_decay=True), or a weight decay of 1e-5 to 1e-4.",
        )  # fmt: skip

    def _by_settings(self, view: View, known: Sequence[Layer], taken: float) -> Finding:
        layer, *others = known
        norms = view.history(layer.weight).of("norm")
        # Where they grow all the same, the gradients hold against it: a strong regularisation, which may be meant.
        grows = sum(_left(view, layer) > 1 for layer in known) > len(known) / 2
        summary = (
            f"Weight decay takes {taken:.1%} of the weights away in every step: the norm of {layer.weight} goes from "
            f"{norms[0]:.3g} to {norms[-1]:.3g}."
        )
        shown = [evidence(view.history(layer.weight), "norm", "the norm of the first layer")]
        return self.finding(
            view, layer.weight, "info" if grows else "warning", summary, shown, step=view.began,
            confidence=0.8, nodes=[other.weight for other in others],
        )  # fmt: skip


def _taken(group: dict[str, Any]) -> float:
    """The part of the weights that weight decay takes away in a step; Adam without decoupling rescales it."""
    rate, decay = group.get("lr"), group.get("weight_decay")
    if not isinstance(rate, (int, float)) or not isinstance(decay, (int, float)):
        return 0.0
    rescaled = "betas" in group and not group.get("decoupled_weight_decay", False)
    return 0.0 if rescaled else float(rate) * float(decay)


def _added(group: dict[str, Any]) -> float:
    """The decay that is added to gradients which are then divided by their own size."""
    rescales = any(name in group for name in ("betas", "alpha", "lr_decay", "rho"))  # alpha: RMSprop's
    decay = group.get("weight_decay")
    is_apart = group.get("decoupled_weight_decay", False) or "lambd" in group
    return float(decay) if rescales and isinstance(decay, (int, float)) and not is_apart else 0.0


def _against_gradient(view: View, layer: Layer) -> float:
    """The norm of a weight over that of its gradient, in the median from the second third on; 0 if unknown."""
    weight, gradient = view.history(layer.weight), view.history(layer.weight, "gradient")
    if len(weight) != len(gradient) or len(weight) < _LEAST:
        return 0.0
    late = slice(len(weight) // 3, None)
    ratio = median(weight.of("norm")[late] / np.maximum(gradient.of("norm")[late], 1e-30))
    return ratio if math.isfinite(ratio) else 0.0


def _left(view: View, layer: Layer) -> float:
    norms = view.history(layer.weight).of("norm")
    return float(norms[-1] / norms[0]) if norms[0] > 0 else 1.0
