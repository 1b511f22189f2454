"""Activations between two layers with weights: what the units of a hidden layer go through, and nothing else."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from stepscope.analysis.flow import Place
from stepscope.analysis.view import View

_LINEAR = frozenset(["linear", "conv1d", "conv2d", "conv3d", "addmm"])
_BETWEEN = frozenset(["dropout", "batch_norm", "layer_norm", "group_norm", "instance_norm", "max_pool2d", "avg_pool2d"])


class Hidden(NamedTuple):
    """An activation, the layer whose output it gets, and one that takes its output directly."""

    place: Place
    before: Place
    after: Place


def hidden_activations(view: View, operations: Collection[str]) -> Iterator[Hidden]:
    """The activations of these kinds that are multiplied with nothing: no gates, and no weights of an attention."""
    for place, vertex in view.flow.vertices.items():
        if vertex.operation not in operations or vertex.type != "calculated":
            continue
        before = [one for one in _behind(view, place) if _is_layer(view, one)]
        after = list(_readers(view, place))
        if before and after and all(_takes_nothing_else(view, reader) for reader in after):
            yield Hidden(place, before[0], after[0])


def _is_layer(view: View, place: Place) -> bool:
    return view.flow.vertices[place].operation in _LINEAR


def _takes_nothing_else(view: View, reader: Place) -> bool:
    """Whether a layer reads one tensor only: else the softmax may be multiplied with the other one on the way."""
    given = [link for link in view.flow.sources.get(reader, ()) if view.flow.vertices[link.place].type != "parameter"]
    return _is_layer(view, reader) and len(given) == 1


def _behind(view: View, place: Place) -> Iterator[Place]:
    """What a place was computed from directly, through other names and what normalises."""
    for link in view.flow.sources.get(place, ()):
        operation = view.flow.vertices[link.place].operation
        passes = operation in _BETWEEN or operation == view.flow.vertices[place].operation
        yield from _behind(view, link.place) if passes and not link.lag else [link.place]


def _readers(view: View, place: Place) -> Iterator[Place]:
    """What takes a tensor, under whichever name and through what normalises."""
    for link in view.flow.sinks.get(place, ()):
        is_same = place in view.flow.same_tensor(link.place)
        passes = is_same or view.flow.vertices[link.place].operation in _BETWEEN
        yield from _readers(view, link.place) if passes and not link.lag else [link.place]
