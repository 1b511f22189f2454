"""Losses that are computed, but are no part of what ``backward`` is called on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.flow import Place
from stepscope.analysis.parameters import Parameter
from stepscope.analysis.view import View


@dataclass(frozen=True)
class LostLosses:
    """What ``backward`` never gets to.

    Attributes:
        driven: the loss that it is called on.
        is_new_tensor: whether that was computed from nothing.
        first: where the way of the parameters ends first.
        terms: the names of all such ends.
        parameters: what is in front of them alone.
    """

    driven: Place
    is_new_tensor: bool
    first: Place
    terms: tuple[str, ...]
    parameters: tuple[Parameter, ...]


def lost_losses(view: View, without: Iterable[Parameter]) -> LostLosses | None:
    """The losses that only parameters without a gradient lead to; None if ``backward`` was seen to reach all.

    Where it is called on a tensor that was computed from nothing, what was computed last stands for a loss.
    """
    driven = [loss for loss in view.losses if is_driven(view, loss)]
    root = next((loss for loss in driven if not view.flow.sources.get(loss)), None)
    lost: dict[Place, list[Parameter]] = {}
    for parameter in without if driven else ():
        reached = view.flow.downstream(view.flow.of_node(parameter.node), differentiable=True)
        ends = [loss for loss in view.losses if loss in reached]
        if not ends and root is not None:
            ends = computed(view, reached)[-1:]
        if ends and not reached.intersection(driven):
            lost.setdefault(ends[0], []).append(parameter)
    if not lost:
        return None
    terms = tuple(dict.fromkeys(term.node for term in lost))
    parameters = tuple(parameter for group in lost.values() for parameter in group)
    return LostLosses(root or driven[0], root is not None, next(iter(lost)), terms, parameters)


def computed(view: View, places: Iterable[Place]) -> list[Place]:
    """What of these was computed, in the order of the data."""
    found = [place for place in places if view.flow.vertices[place].type == "calculated"]
    return sorted(found, key=lambda place: view.position.get(place.node, 0))


def is_driven(view: View, loss: Place) -> bool:
    """Whether ``backward`` came by."""
    names = (name for name in view.nodes[loss.node].quantities if name.startswith("gradient"))
    return any(len(view.history(loss.node, name, role=loss.role)) for name in names)
