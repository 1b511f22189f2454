"""The attentions of a trial: the places that have attention quantities, and whether one attends to itself."""

from __future__ import annotations

from stepscope.analysis.flow import Place
from stepscope.analysis.parameters import is_inside
from stepscope.analysis.view import View


def attentions(view: View, quantity: str = "attention_entropy") -> list[Place]:
    """The places of training steps that have a quantity of attention, in data-flow order."""
    found = {
        Place(tensor.node, tensor.role)
        for part in view.readings
        if part.trains
        for tensor in part.layout.tensors
        if tensor.quantity == quantity
    }
    return sorted(found, key=lambda place: (view.position.get(place.node, 0), place.role))


def attends_to_itself(view: View, attention: Place, tokens: Place) -> bool:
    """Whether everything learned that enters an attention was computed from these tokens.

    Not so for one that mixes two sequences: that of a decoder which looks at what an encoder made of another one.
    """
    reached = view.flow.downstream([tokens])
    entering = _entering(view, attention)
    if not entering:  # it is written down in the model itself, which reads all inputs
        behind = view.flow.upstream([attention])
        entering = {place for place in view.flow.of_type("input") if place in behind} - {tokens}
    return attention in reached and all(place in reached for place in entering)


def _entering(view: View, attention: Place) -> set[Place]:
    """The calculated tensors with a gradient that enter the module from outside; the attention's own node is it."""
    entering: set[Place] = set()
    waiting, seen = [attention], {attention}
    while waiting:
        for link in view.flow.sources.get(waiting.pop(), ()):
            place = link.place
            if place in seen or not link.differentiable or view.flow.vertices[place].type != "calculated":
                continue
            seen.add(place)
            if is_inside(place.node, attention.node):
                waiting.append(place)
            else:
                entering.add(place)
    return entering
