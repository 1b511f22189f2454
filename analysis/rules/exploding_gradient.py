"""The rule ``exploding-gradient``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.clipping import clipping
from stepscope.analysis.finding import Finding
from stepscope.analysis.history import History
from stepscope.analysis.layers import Layer, gradient_of, layers, rms_output_gradient
from stepscope.analysis.parameters import learning
from stepscope.analysis.robust import largest, median
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_LEAST = 10
_NOTHING = 1e-6
"""The part of the largest gradient of all parameters that nobody needs to hear of."""


@dataclass(frozen=True)
class ExplodingGradient(Rule):
    """Gradients grow on the way back, or from one step to the next, by orders of magnitude.

    Symptom: updates that undo what was learned; the loss jumps or becomes NaN.

    How it is measured: along the graph, the root mean square gradient of each layer's output against that of the last
    layer computed from it; along time, the gradient of each layer against its own median of the first half, and against
    its start: what only falls has not exploded. The finding names the first layer on the way back, or the first step,
    that goes beyond the threshold.

    Causes: weights initialised too large, many layers (or iterations) without normalisation, a learning rate at the
    edge of stability, single extreme samples.

    Remedy: clip gradients by their norm, initialise smaller, normalise layers, lower the learning rate.

    Attributes:
        depth_ratio: along the graph. Source: the inverse of ``vanishing-gradient``'s, milder by ten, since large
            gradients harm more than small ones.
        time_ratio: along time. Source: a hundred times the 10 of trainscope's explosion label, because medians of
            healthy runs that end near a loss of 0 are small.
        at_once: along the few steps before a training breaks down. Source: that of ``loss-divergence``'s ``burst``.
    """

    name = "exploding-gradient"
    causes = "Weights initialised too large, depth without normalisation, or a learning rate at the edge of stability."
    remedy = "Clip gradients by their norm, initialise smaller, add normalisation layers, or lower the learning rate."
    depth_ratio: float = 1e3
    time_ratio: float = 1e3
    at_once: float = 100.0

    def check(self, view: View) -> Iterable[Finding]:
        known = layers(view)
        yield from self._in_depth(view, known)
        yield from self._in_time(view, known)
        yield from self._at_once(view, known)

    def _in_depth(self, view: View, known: list[Layer]) -> Iterable[Finding]:
        sizes = {layer: rms_output_gradient(view, layer) for layer in known}
        strong: list[tuple[Layer, Layer]] = []
        for layer in known:
            places = view.flow.downstream(view.flow.of_node(layer.module), differentiable=True)
            reached = {place.node for place in places}
            later = [other for other in known if other.module in reached and sizes[other] > 0]
            if later and sizes[layer] > self.depth_ratio * sizes[later[-1]]:
                strong.append((layer, later[-1]))
        if strong:
            layer, last = strong[-1]
            summary = (
                f"The gradient explodes on its way back: {sizes[layer]:.2g} an element in {layer.module}, "
                f"{sizes[layer] / sizes[last]:.0f} times the {sizes[last]:.2g} in {last.module}."
            )
            others = [one.module for one, _ in strong[:-1]]
            yield self._finding(view, gradient_of(view, layer.module), layer, summary, view.began, others)

    def _in_time(self, view: View, known: list[Layer]) -> Iterable[Finding]:
        floor = _NOTHING * max(
            (median(view.history(node, "gradient").of("norm")) for node in learning(view)), default=0
        )
        found: list[tuple[int, Layer, float, float]] = []
        for layer in known:
            history = gradient_of(view, layer.weight)
            if history is None or len(history) < _LEAST:
                continue
            norms = history.of("norm")
            usual = median(norms[: len(norms) // 2])
            norms = np.where(norms > floor, norms, 0.0)
            # What only falls from a large start has not exploded: the loss may be close to zero by now.
            early = largest(norms[: max(3, len(norms) // 10)])
            high = np.flatnonzero((norms > self.time_ratio * usual) & (norms > 10 * early))
            if usual > 0 and len(high):
                found.append((int(history.steps[high[0]]), layer, float(norms[high[0]]), usual))
        if found:
            step, layer, norm, usual = min(found, key=lambda entry: (entry[0], -view.position[entry[1].module]))
            summary = (
                f"The gradient of {layer.weight} explodes at step {step}: its norm is {norm:.2g}, where {usual:.2g} "
                f"was usual."
            )
            yield self._finding(view, gradient_of(view, layer.weight), layer, summary, step, [])

    def _at_once(self, view: View, known: list[Layer]) -> Iterable[Finding]:
        """Gradients that grow from the first step on, until nothing is a number any more."""
        found: list[tuple[float, Layer, History]] = []
        for layer in known if view.broken else ():
            history = gradient_of(view, layer.weight)
            if history is None or not 3 <= len(history) < _LEAST:
                continue
            norms = history.of("norm")
            if np.all(np.diff(norms)[-2:] > 0):
                found.append((float(norms[-1] / max(norms[0], 1e-30)), layer, history))
        found = [entry for entry in found if entry[0] > self.at_once]
        if not found:
            return
        _, layer, history = max(found, key=lambda entry: entry[0])
        norms, calls = history.of("norm"), len(view.nodes[layer.module].roles)
        through = f", through {calls} moments of a recurrence" if calls > 1 else ""
        clipped = "" if clipping(view) else ", and nothing clips it"
        summary = (
            f"The gradient of {layer.weight} explodes at once{through}: its norm grows from {norms[0]:.2g} to "
            f"{norms[-1]:.2g} in {len(norms)} recorded steps{clipped}."
        )
        yield self._finding(view, history, layer, summary, int(history.steps[0]), [])

    def _finding(
        self, view: View, history: History | None, layer: Layer, summary: str, step: int, others: list[str]
    ) -> Finding:
        shown = [] if history is None else [evidence(history, "norm", "the norm of its gradient")]
        return self.finding(view, layer.module, "warning", summary, shown, step=step, nodes=others, confidence=0.8)
