"""The rule ``lost-signal``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.first_signal import difference
from stepscope.analysis.flow import Place
from stepscope.analysis.layers import Layer, layers
from stepscope.analysis.loss_inputs import is_floating
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_MOST = 1.0
"""What is larger may go through a sigmoid or a normalisation that is no module, and is no larger behind it."""


@dataclass(frozen=True)
class LostSignal(Rule):
    """A layer gives far less than its weights make of its inputs: something scales the signal away.

    Symptom: what is behind the layer sees its biases alone; the outputs hardly depend on the inputs.

    How it is measured: in the first training step, how much samples differ (root mean square) behind a linear or
    convolutional layer, against how much they differ in the nearest tensor with a name that it is computed from, times
    the gain of its weights (their standard deviation times the root of the fan-in), which is what independent inputs
    would give. Differences larger than 1 count as 1; layers count whose input has the size of that tensor.

    Causes: inputs that are divided once more on their way (by 255, say), a mask or a factor next to zero, a hook.

    Remedy: look at what is done between the two tensors; leave out the factor.

    Attributes:
        left: the part that counts as lost. Source: of ours; weights that are not random give a tenth at least.
    """

    name = "lost-signal"
    causes = "Inputs that are divided once more on their way (by 255, say), a mask or a factor next to zero, a hook."
    remedy = "Look at what is done with the tensor before and behind this layer; leave out the factor."
    left: float = 0.01

    def check(self, view: View) -> Iterable[Finding]:
        parts = {layer: _left(view, layer) for layer in layers(view)} if view.training else {}
        lost = [layer for layer, part in parts.items() if 0 < part < self.left]  # nothing at all is said by others
        if not lost:
            return
        first = lost[0]
        more = f" (and so do {len(lost) - 1} more layers)" if len(lost) > 1 else ""
        summary = (
            f"{first.module} gives {parts[first]:.1g} of what its weights would make of its inputs{more}: the signal "
            f"is scaled away, or masked, on its way."
        )
        shown = [evidence(view.history(first.module), "abs_mean", "what is left")]
        yield self.finding(
            view, first.module, "warning", summary, shown, step=view.began, confidence=0.8,
            nodes=[layer.module for layer in lost[1:]],
        )  # fmt: skip


def _left(view: View, layer: Layer) -> float:
    """How much samples differ behind a layer over what its weights and inputs would give; NaN if it is not known."""
    weight, place = view.history(layer.weight), Place(layer.module, view.nodes[layer.module].roles[-1])
    sources = [
        link.place
        for link in view.flow.sources.get(place, ())
        if view.flow.vertices[link.place].type not in ("parameter", "buffer")
    ]
    if not sources or not len(weight) or not all(_is_its_input(view, layer, source, place) for source in sources):
        return math.nan
    size = min(_MOST, *(difference(view, source) for source in sources))
    expected = float(weight.of("std")[0]) * math.sqrt(layer.fan_in) * size
    return difference(view, place) / expected if expected > 0 else math.nan


def _is_its_input(view: View, layer: Layer, source: Place, place: Place) -> bool:
    """Whether a place has the shape of what goes into a layer: an average over many others would differ less."""
    step = view.training[0]
    given, made = view.shape(source, step), view.shape(place, step)
    if not given or not made or not is_floating(view, source):
        return False
    if layer.module_class == "Linear":
        return given[0] == made[0] and math.prod(given) == math.prod(made[:-1]) * layer.shape[1]
    return len(given) == len(made) and given[1] == layer.shape["Transpose" not in layer.module_class]
