"""The rule ``vanishing-gradient``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.first_signal import differences, lost
from stepscope.analysis.flow import Place
from stepscope.analysis.layers import Layer, gradient_of, layers, rms_gradient
from stepscope.analysis.robust import median
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_EARLY = 5
"""Steps: later on, what can learn in spite of it may have found a way."""


@dataclass(frozen=True)
class VanishingGradient(Rule):
    """Gradients shrink on the way back, until the first layers hardly get any.

    Symptom: the last layers learn, the first ones stay as they were; adding layers makes it worse.

    How it is measured: the root mean square gradient of each layer's weight (so that sizes do not blur the comparison),
    in the median of the training steps, against the largest of the layers that are computed from it. The finding names
    the frontier: the first layer on the way back that falls below the threshold, and all behind it. For a module that
    is called several times in a row (a recurrent cell), the gradients of its outputs are compared call by call. A
    signal that fades on its way to the loss takes all gradients with it: how much samples differ behind each layer, in
    the first step, is compared with the most before it.

    Causes: many sigmoid or tanh layers in a row, weights that are initialised too small, no residual connections or
    normalisation.

    Remedy: use ReLU or GELU, He or Glorot initialisation, residual connections, normalisation layers.

    Attributes:
        ratio: of a layer's gradient to the largest one nearer to the loss. Source: AutoTrainer's 1e-3, made stricter by
            ten because Adam rescales gradients. No absolute limit: it would depend on the scale of the loss.
        left: of the difference between samples, in the first step, as a part of the largest before. Source: a hundredth
            and more in all healthy runs.
        each_call: what a call may leave of the gradient, where calls are compared; memories of a healthy recurrent net
            fade, too. Source: a saturated or hardly connected cell leaves less than a tenth, PyTorch's default a half.
    """

    name = "vanishing-gradient"
    causes = "Many sigmoid or tanh layers in a row, weights initialised too small, no residuals or normalisation."
    remedy = "Use ReLU or GELU with He initialisation, residual connections, or normalisation layers."
    ratio: float = 1e-4
    left: float = 1e-5
    each_call: float = 0.15

    def check(self, view: View) -> Iterable[Finding]:
        sizes = {layer: rms_gradient(view, layer) for layer in layers(view)}
        weak = [layer for layer in sizes if self._against(view, layer, sizes)[1] < self.ratio]
        if weak:
            frontier = weak[-1]
            yield self._finding(view, frontier, weak, sizes)
        else:
            yield from self._on_the_way_there(view, list(sizes))
        yield from self._over_calls(view)

    def _on_the_way_there(self, view: View, known: list[Layer]) -> Iterable[Finding]:
        """A signal that fades on its way to the loss: then no weight on the way gets a gradient to speak of."""
        if not view.training or view.began > 0:
            return
        found = lost(view, known, self.left)
        if not found:
            return
        frontier = next(iter(found))
        left = differences(view, [frontier])[frontier]
        summary = (
            f"The signal vanishes on its way to the loss: from {frontier.module} on, samples differ by "
            f"{left:.1g} only, where {found[frontier]:.2g} was the most before; gradients of the weights "
            f"vanish with it."
        )
        shown = [evidence(view.history(frontier.module), "std", "hardly any difference between samples")]
        others = [layer.module for layer in found if layer != frontier]
        yield self.finding(view, frontier.module, "warning", summary, shown, step=0, nodes=others, confidence=0.8)

    def _over_calls(self, view: View) -> Iterable[Finding]:
        for path in view.modules:
            sizes = _of_calls(view, path)
            if len(sizes) < 3 or not sizes[0] < self.ratio * sizes[-1]:
                continue
            if (sizes[0] / sizes[-1]) ** (1 / (len(sizes) - 1)) < self.each_call:
                summary = (
                    f"The gradient vanishes over the {len(sizes)} calls of {path}: {sizes[0]:.2g} at the first, "
                    f"{sizes[-1]:.2g} at the last one; it cannot learn what came early."
                )
                history = view.history(path, "gradient", role="call 0")
                shown = [evidence(history, "norm", "the gradient of its first output")]
                step = int(history.steps[0])
                yield self.finding(view, path, "warning", summary, shown, step=step, confidence=0.8)

    def _against(self, view: View, layer: Layer, sizes: dict[Layer, float]) -> tuple[Layer, float]:
        """The layer with the largest gradient behind this one, and how large this one's is next to it."""
        reached = {place.node for place in view.flow.downstream(view.flow.of_node(layer.module), differentiable=True)}
        later = [other for other in sizes if other.module in reached and math.isfinite(sizes[other])]
        strongest = max(later, key=lambda other: sizes[other], default=layer)
        own = sizes[layer]
        return strongest, own / sizes[strongest] if own > 0 and sizes[strongest] > 0 else math.inf

    def _finding(self, view: View, frontier: Layer, weak: list[Layer], sizes: dict[Layer, float]) -> Finding:
        strongest, ratio = self._against(view, frontier, sizes)
        summary = (
            f"The gradient vanishes on its way back: {sizes[frontier]:.2g} an element in {frontier.weight}, "
            f"{ratio:.1g} of the {sizes[strongest]:.2g} in {strongest.weight}; {len(weak)} layers get no more."
        )
        shown = [
            evidence(history, "norm", text)
            for layer, text in ((frontier, "hardly any gradient"), (strongest, "the gradient nearer to the loss"))
            if (history := gradient_of(view, layer.weight)) is not None
        ]
        others = [layer.module for layer in reversed(weak[:-1])]
        return self.finding(
            view,
            frontier.module,
            "warning",
            summary,
            shown,
            step=view.began,
            nodes=others,
            confidence=0.85,
        )


def _of_calls(view: View, path: str) -> list[float]:
    """The norm of the gradient of each output of a module that feeds itself, early on; empty if it does not."""
    roles = view.nodes[path].roles if path in view.nodes else ()
    places = [Place(path, f"call {number}") for number in range(len(roles))]
    if len(places) < 3 or any(place.role not in roles for place in places):
        return []
    if places[-1] not in view.flow.downstream(places[:1], differentiable=True):
        return []
    histories = [view.history(path, "gradient", role=place.role) for place in places]
    sizes = [median(history.of("norm")[: max(_EARLY, len(history) // 10)]) for history in histories]
    return sizes if all(size > 0 for size in sizes) else []
