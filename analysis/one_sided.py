"""Outputs of layers in which a loss falls steadily: its gradient has one sign for every sample, in every step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis.flow import Place
from stepscope.analysis.layers import layers
from stepscope.analysis.neurons import neurons_of
from stepscope.analysis.units import unit_of
from stepscope.analysis.view import View
from stepscope.store import Step
from stepscope.store.records import NEURON_STATISTICS

_MEAN = NEURON_STATISTICS.index("mean")
_STEPS, _LEAST, _LAYERS = 16, 10, 30
_ALWAYS, _GOES_ON = 0.995, 0.05
Rows = NDArray[np.float64]


@dataclass(frozen=True)
class OneSided:
    """Features of a layer's output whose gradient never changes its sign, and that move on and on.

    Attributes:
        place: the layer's output.
        feature: the one that went farthest: a column, or the channel of an image.
        features, of: how many do so, of how many.
        way, end: how far that feature's mean went, from the first steps to the last, and where it ended.
    """

    place: Place
    feature: int
    features: int
    of: int
    way: float
    end: float


def one_sided(view: View, least: float) -> Iterator[OneSided]:
    """Layers with such outputs that moved by ``least`` and still move, and no layer behind them, the last layers first.

    Within a net, numbers may well move one way for long, as far targets are reached by their sum.
    """
    steps = [view.training[index] for index in np.linspace(0, len(view.training) - 1, _STEPS).round().astype(int)]
    if len(view.training) < _LEAST:
        return
    known = layers(view)[-_LAYERS:]
    for layer in known[::-1]:
        places = view.flow.of_node(layer.module)
        behind = {place.node for place in view.flow.downstream(places, differentiable=True)} - {layer.module}
        if behind.intersection(other.module for other in known):
            continue
        if len(places) == 1 and (found := _of_place(view, steps, places[0], least)) is not None:
            yield found


def _of_place(view: View, steps: Sequence[Step], place: Place, least: float) -> OneSided | None:
    signs: list[Rows] = []
    means: list[Rows] = []
    for step in steps:
        shape, gradient, value = view.shape(place, step), neurons_of(step, place, "gradient"), neurons_of(step, place)
        if gradient is None or value is None or value.statistics is None or shape is None or len(shape) < 2:
            return None
        unit = unit_of(np.arange(gradient.samples.shape[1]) * gradient.total // gradient.samples.shape[1], shape[1:])
        if (
            len(unit) != value.statistics.shape[1]
            or len(gradient.samples) < 2
            or (signs and len(signs[0]) != unit.max() + 1)
        ):
            return None
        count = np.maximum(np.bincount(unit), 1)
        signs.append(np.bincount(unit, np.sign(gradient.samples).mean(axis=0)) / count)
        means.append(np.bincount(unit, value.statistics[_MEAN]) / count)
    return _judge(place, np.array(signs).mean(axis=0), np.array(means), least)


def _judge(place: Place, side: Rows, means: Rows, least: float) -> OneSided | None:
    third = len(means) // 3
    early, middle, late = means[:2].mean(axis=0), means[third:-third].mean(axis=0), means[-2:].mean(axis=0)
    way = -(late - early) * np.sign(side)
    goes_on = -(late - middle) * np.sign(side) > _GOES_ON * np.abs(way)
    columns = np.flatnonzero((np.abs(side) > _ALWAYS) & (way > least) & goes_on)
    if not len(columns):
        return None
    best = int(columns[np.argmax(way[columns])])
    return OneSided(place, best, len(columns), len(side), float((late - early)[best]), float(late[best]))
