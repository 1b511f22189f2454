"""The rule ``single-unit``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.baseline import baselines, count_classes
from stepscope.analysis.curves import LEAST_POINTS, loss_curves
from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.loss_inputs import OF_CLASSES, comparisons
from stepscope.analysis.robust import median
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store.records import ModuleInfo

_FAR, _DIRECTIONS = 6, 2


@dataclass(frozen=True)
class SingleUnit(Rule):
    """A hidden layer of a single unit between wider ones, or of too few for what is told behind it.

    Symptom: the net learns little more than a mean, or the order of its classes along a line.

    How it is measured: a linear layer of one output, or a recurrent one of one hidden unit, is given many numbers, and
    what it gives goes into another layer, through activations, normalisations and dropout at most, and nothing else
    does. An autoencoder with a code of one number is built like this, so it is worth knowing only. So is a linear layer
    of fewer units than the logarithm to base 2 of the number of classes: with each unit on or off, they would be too
    few to tell the classes from each other. And so is the narrowest hidden layer, of two or three units, of a net whose
    loss has settled, and is still a good part of that of a constant answer.

    Causes: a size that was left at its default (``lstm_size=1``), numbers of the output and of hidden units exchanged.

    Remedy: give the layer as many units as its neighbours.

    Source: no threshold but the widths.

    Attributes:
        recurrent, linear: how many inputs such a layer must have to count. Source: of ours; gates that squeeze sixteen
            channels to one are usual.
        inputs, wider: or so many, if the layer behind has that many times as many outputs as this one has inputs.
            Source: of ours; what a gate, or the decoder of an autoencoder, gives has as many numbers as were squeezed.
        few: the most units of a layer that is narrow for anything. Source: of ours.
        left: the part of a constant answer's loss at which the loss of a net with such a layer has settled.
        settled: the part by which it still falls from the third quarter of the steps to the last.
        hardly: the part of a constant answer's loss above which it need not have settled.
    """

    name = "single-unit"
    causes = "A size that was left at its default, or the numbers of outputs and hidden units exchanged."
    remedy = "Give the layer as many units as the layers around it."
    recurrent: int = 8
    linear: int = 32
    inputs: int = 3
    wider: int = 4
    few: int = 3
    left: float = 0.3
    settled: float = 0.1
    hardly: float = 0.75

    def check(self, view: View) -> Iterable[Finding]:
        yield from list(self._before_classes(view)) or self._settled_above(view)
        for module in view.modules.values():
            width = self._width(module)
            after = _next_layer(view, module.path, 1) if width and view.training else ""
            if after and (width >= self.linear or _is_recurrent(module) or self._widens(view, after, width)):
                summary = (
                    f"{module.path} ({module.module_class}) has one unit, between {width} inputs and {after}: it is a "
                    f"bottleneck, too narrow for more than a single number of each sample."
                )
                history = view.history(module.path)
                yield self.finding(
                    view, module.path, "info", summary, [evidence(history, "std", "a single unit's spread")],
                    step=view.began, nodes=[after], confidence=0.6,
                )  # fmt: skip

    def _before_classes(self, view: View) -> Iterable[Finding]:
        """Layers of a few units, through which many classes are told."""
        compared = [one for one in comparisons(view) if one.operation in OF_CLASSES and len(one.shape) > 1]
        classes = max((count_classes(one.shape, one.target_shape) for one in compared), default=0)
        for module in view.modules.values():
            weight = next((info.shape for info in module.parameters if info.name == "weight"), ())
            if len(weight) != 2 or not 1 < weight[0] < math.log2(max(classes, 1)) or weight[1] < self.linear:
                continue
            if after := _next_layer(view, module.path, weight[0]):
                summary = (
                    f"{module.path} ({module.module_class}) has {weight[0]} units, between {weight[1]} inputs and "
                    f"{after}: a bottleneck that is narrow for {classes} classes."
                )
                history = view.history(module.path)
                yield self.finding(
                    view, module.path, "info", summary, [evidence(history, "std", "the spread of its units")],
                    step=view.began, nodes=[after], confidence=0.6,
                )  # fmt: skip

    def _settled_above(self, view: View) -> Iterable[Finding]:
        """Hidden layers of two or three units, with which a net learns no more."""
        curves, known = list(loss_curves(view)), {b.loss: b.constant for b in baselines(view)}
        if len(view.objectives) != 1 or len(curves) != 1 or view.is_young or len(curves[0]) < LEAST_POINTS:
            return
        curve = curves[0]
        constant = known.get(curve.place, math.nan)
        constant = constant if math.isfinite(constant) else curve.low_start
        quarter = len(curve) // 4
        before, last = median(curve.values[-2 * quarter : -quarter]), median(curve.values[-quarter:])
        if not self.left * constant < last < constant:
            return
        if before - last > self.settled * last and last < self.hardly * constant:
            return
        for module in view.modules.values():
            weight = next((info.shape for info in module.parameters if info.name == "weight"), ())
            is_narrow = len(weight) == 2 and 1 < weight[0] <= self.few
            after = _next_layer(view, module.path, weight[0]) if is_narrow else ""
            if after:
                summary = (
                    f"{module.path} ({module.module_class}) has {weight[0]} hidden units, between {weight[1]} inputs "
                    f"and {after}, and {curve.place.node} has settled at {last:.3g}, {last / constant:.0%} of its "
                    f"level without learning: the layer may be too narrow, a bottleneck with too few units."
                )
                shown = [evidence(curve.history, "mean", "settled")]
                yield self.finding(
                    view, module.path, "info", summary, shown, step=view.began, nodes=[after],
                    confidence=0.5,
                )  # fmt: skip

    def _width(self, module: ModuleInfo) -> int:
        """The inputs of a layer with one unit; 0 of any other module, and of one with few inputs."""
        shapes = {parameter.name: parameter.shape for parameter in module.parameters}
        state, given = shapes.get("weight_hh_l0", shapes.get("weight_hh")), shapes.get("weight_ih_l0")
        given = given or shapes.get("weight_ih")
        if state is not None and given is not None:
            return given[-1] if state[-1] == 1 and given[-1] >= self.recurrent else 0
        weight = shapes.get("weight", ())
        return weight[1] if len(weight) == 2 and weight[0] == 1 and weight[1] >= self.inputs else 0

    def _widens(self, view: View, after: str, width: int) -> bool:
        """Whether the layer behind makes many more numbers of a single one than that was made of."""
        weights = (p.shape for p in view.modules[after].parameters) if after in view.modules else ()
        return any(len(shape) == 2 and shape[0] >= self.wider * width for shape in weights)


def _is_recurrent(module: ModuleInfo) -> bool:
    return any(parameter.name.startswith("weight_hh") for parameter in module.parameters)


def _next_layer(view: View, module: str, units: int) -> str:
    """The module of the layer that gets what the units of a module give, and nothing else; empty if there is none."""
    here = [place for place in view.flow.of_node(module) if place.role in ("output", "output.0", "call 0", "call 0.0")]
    seen = set(here)
    for _ in range(_FAR):
        here = [link.place for place in here for link in view.flow.sinks.get(place, ()) if link.place not in seen]
        here = [place for place in here if _reads_only(view, place, seen)]
        seen.update(here)
        layer = next((place for place in here if _reads(view, place, units)), None)
        if layer is not None:
            return view.flow.vertices[layer].module or layer.node
    return ""


def _reads_only(view: View, place: Place, places: set[Place]) -> bool:
    """Whether something was computed from these places, and weights, alone."""
    if view.flow.vertices[place].type != "calculated":
        return False
    sources = [link.place for link in view.flow.sources.get(place, ())]
    return all(one in places or view.flow.vertices[one].type in ("parameter", "buffer") for one in sources)


def _reads(view: View, place: Place, units: int) -> bool:
    """Whether a layer made this whose matrix has a column for each unit, in both directions; one unit needs several."""
    weights = (link.place for link in view.flow.sources.get(place, ()))
    shapes = (view.shape(one, view.training[-1]) for one in weights if view.flow.vertices[one].type == "parameter")
    return any(
        shape is not None and len(shape) == 2 and shape[0] > (units == 1) and shape[1] <= _DIRECTIONS * units
        for shape in shapes
    )
