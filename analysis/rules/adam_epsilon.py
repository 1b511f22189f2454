"""The rule ``adam-epsilon``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.layers import layers
from stepscope.analysis.optimizers import settings
from stepscope.analysis.parameters import is_gradient_zero, learning
from stepscope.analysis.robust import median
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class AdamEpsilon(Rule):
    """Adam's eps is larger than the gradients it is meant to protect.

    Symptom: updates shrink with the gradients, as if Adam did not rescale them; such layers stand still.

    How it is measured: Adam divides by ``sqrt(v) + eps``. The root of the mean of the recorded ``exp_avg_sq`` of each
    weight, in the median of the training steps, against the optimizer's eps.

    For weights in float16 an eps below 3e-8, such as the usual 1e-8, is zero: where a gradient is zero, it divides
    nothing by nothing.

    Causes: a loss that is scaled down, very small gradients, an eps taken over from another optimizer.

    Remedy: scale the loss up, or lower eps.

    Attributes:
        factor: how many times the root the eps must be. Source: at 1 updates are halved; ten leaves no doubt.
        unusual: an eps that is a choice, not a default: it is told where it outweighs gradients at all. Source: the
            largest that a documentation proposes is 1, for one network on images (TensorFlow's Adam).
        share: of the layers.
        vanished: how many times the root of the layers in the middle another parameter's may be. Source: of ours; where
            gradients vanish, a bias near the loss still gets one.
    """

    name = "adam-epsilon"
    about = "optimizer"
    causes = "A loss that is scaled down, very small gradients, or an eps that was taken over from another optimizer."
    remedy = "Scale the loss up, or lower eps."
    factor: float = 10.0
    unusual: float = 1e-2
    share: float = 0.5
    vanished: float = 1e4

    def check(self, view: View) -> Iterable[Finding]:
        yield from self._of_half(view)
        eps = _epsilon(view)
        known = [layer for layer in layers(view) if len(view.history(layer.weight, "exp_avg_sq")) >= 3]
        known = [layer for layer in known if not is_gradient_zero(view, layer.weight)]
        if eps is None or not known:
            return
        roots = {
            layer.weight: float(np.sqrt(median(view.history(layer.weight, "exp_avg_sq").of("mean")))) for layer in known
        }
        factor = 1.0 if eps >= self.unusual else self.factor
        small = [weight for weight, root in roots.items() if factor * root < eps]
        vanish = bool(small) and _largest_root(view) > self.vanished * median(np.array(list(roots.values())))
        if len(small) >= self.share * len(known) and not vanish:
            first = small[0]
            summary = (
                f"Adam's eps of {eps:g} outweighs the gradients of {len(small)} of {len(known)} layers: the root of "
                f"exp_avg_sq is {roots[first]:.2g} in {first}."
            )
            shown = [evidence(view.history(first, "exp_avg_sq"), "mean", f"its root is {roots[first]:.2g}")]
            yield self.finding(view, first, "warning", summary, shown, step=view.began, nodes=small[1:], confidence=0.8)

    def _of_half(self, view: View) -> Iterable[Finding]:
        eps, halves = _epsilon(view), _halves(view)
        if eps is None or not 0 <= eps < _ROUNDED or not halves or not view.broken:
            return
        summary = (
            f"Adam's eps of {eps:g} is zero in float16, in which {halves[0]} and {len(halves) - 1} more parameters are "
            f"kept: where a gradient was zero, or too small for float16, zero is divided by zero."
        )
        remedy = "Keep the weights in float32 (torch.autocast computes in half), or set eps to 1e-4 or more."
        step = view.began
        yield self.finding(view, halves[0], "warning", summary, step=step, nodes=halves[1:], remedy=remedy)


_ROUNDED = 2.0**-25
"""Half of float16's smallest number: what is less becomes zero."""


def _halves(view: View) -> list[str]:
    """The parameters that are kept in float16."""
    if not view.training:
        return []
    tensors = view.training[0].layout.tensors
    return [t.node for t in tensors if t.type == "parameter" and t.quantity == "value" and t.dtype == "float16"]


def _largest_root(view: View) -> float:
    """The largest root of the mean of ``exp_avg_sq`` of all parameters."""
    histories = (view.history(node, "exp_avg_sq") for node in learning(view))
    return max((float(np.sqrt(median(history.of("mean")))) for history in histories if len(history)), default=0.0)


def _epsilon(view: View) -> float | None:
    """The smallest eps of the optimizers of the first training step; None if none has one."""
    found = [float(group["eps"]) for group in settings(view) if isinstance(group.get("eps"), (int, float))]
    return min(found, default=None)
