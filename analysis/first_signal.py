"""How a signal comes through the net in the first step, before anything was learned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stepscope.analysis.flow import Place
from stepscope.analysis.layers import Layer, layers, rms
from stepscope.analysis.spread import neuron_moments
from stepscope.analysis.view import View


class Amplifier(NamedTuple):
    """A module whose output is ``factor`` times as large as what goes in; over ``calls`` calls, if it feeds itself."""

    module: str
    factor: float
    calls: int


def differences(view: View, known: Sequence[Layer]) -> dict[Layer, float]:
    """How much samples differ behind each layer (root mean square), where it is known and not exactly zero."""
    spreads = {layer: difference(view, Place(layer.module, view.nodes[layer.module].roles[-1])) for layer in known}
    return {layer: spread for layer, spread in spreads.items() if spread > 0}


def difference(view: View, place: Place) -> float:
    """The root mean square, over the neurons, of their spread over the first batch; NaN if it is not known."""
    moments = neuron_moments(view.training[0], place)
    return math.nan if moments is None else float(np.sqrt(np.mean(moments[1] ** 2)))


def lost(view: View, known: Sequence[Layer], part: float) -> dict[Layer, float]:
    """The layers behind which samples differ by less than a part of what they did before, and by how much there."""
    left = differences(view, known)
    found: dict[Layer, float] = {}
    for layer in [layer for layer in left if left[layer] < part * max(left.values())]:
        behind = {place.node for place in view.flow.upstream(view.flow.of_node(layer.module))}
        most = max(left[other] for other in left if other.module in behind)
        if left[layer] < part * most:
            found[layer] = most
    return found


def fading(view: View, known: Sequence[Layer]) -> float:
    """What is left, behind the last layer, of how much samples differ behind the first one; NaN if it is not known."""
    spreads = list(differences(view, known).values())
    return spreads[-1] / spreads[0] if len(spreads) > 1 else math.nan


def amplifiers(view: View) -> list[Amplifier]:
    """What each module with parameters of its own makes of the size of its input (or of 1, if that is smaller).

    Plain layers are left out, whose weights say more. A constant that a module adds (a bias that starts at the mean of
    the targets) does not count.
    """
    found = []
    plain = {layer.module for layer in layers(view)}  # their weights say more
    for path, module in view.modules.items():
        places = view.flow.of_node(path) if module.parameters and path not in plain else []
        before = max((_size(view, source) for place in places for source in _inputs(view, place)), default=0.0)
        last = max((_size(view, place, spread=True) for place in places), default=0.0)
        if before > 0 and math.isfinite(last):
            found.append(Amplifier(path, last / max(before, 1.0), len(places)))
    return found


def _inputs(view: View, place: Place) -> list[Place]:
    """What goes into a module, without what it made itself."""
    links = view.flow.sources.get(place, ())
    known = [link.place for link in links if view.flow.vertices[link.place].type in ("calculated", "input")]
    return [source for source in known if source.node != place.node]


def _size(view: View, place: Place, *, spread: bool = False) -> float:
    """The root mean square (or standard deviation) of a place that holds real numbers, in the first step."""
    history = view.history(place.node, role=place.role)
    row = view.training[0].layout.row(place.node, "value", place.role, None)
    if not len(history) or row is None or "float" not in view.training[0].layout.tensors[row].dtype:
        return 0.0
    return float(history.of("std")[0] if spread else rms(history)[0])
