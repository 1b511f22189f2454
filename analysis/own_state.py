"""Modules that are called on their own state again and again in a step, without a gradient from call to call."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

from stepscope.analysis.flow import Place
from stepscope.analysis.lines import sites_of
from stepscope.analysis.view import View
from stepscope.store.records import SourceLine

_DETACHING = frozenset(["detach", "detach_", "data", "numpy"])
"""What takes a tensor off the graph as it is; other cuts (``argmax``, a comparison) make something else of it."""


@dataclass(frozen=True)
class CutState:
    """A state that is cut off between all calls of a module.

    Attributes:
        calls: how many there are in a step.
        is_sure: it is a recurrent cell, or the calls before the last one read an input and reach no loss; else each
            call may have a loss, and the cut be meant.
        source: the line that cuts.
    """

    calls: int
    is_sure: bool
    source: SourceLine | None


def cut_state(view: View, path: str) -> CutState | None:
    """What of this there is in the training steps; None if the module is none of these."""
    calls = _calls(view, path)
    between = [(one, two) for one, two in pairwise(calls) if _is_made_of(view, one, two)]
    if len(between) < 2 or len(between) < len(calls) - 1 or not _all_cut(view, between):
        return None
    is_cell = view.modules[path].module_class.endswith("Cell")
    line = _line_between(view, between)
    if not is_cell and (line is None or not all(_learns(view, call) for call in calls)):
        return None
    is_wasted = all(_reads(view, call) and not _reaches_loss(view, call) for call in calls[:-1])
    return CutState(len(calls), is_cell or is_wasted, line or view.flow.vertices[calls[1][0]].source)


def _calls(view: View, path: str) -> list[list[Place]]:
    """What each call of a module gave, in the order of the calls; nothing of one that is called once."""
    found: dict[int, list[Place]] = defaultdict(list)
    for place in view.flow.of_node(path) if view.training else ():
        number = place.role.removeprefix("call ").partition(".")[0]
        if place.role.startswith("call ") and number.isdecimal():
            found[int(number)].append(place)
    return [found[number] for number in sorted(found)]


def _is_made_of(view: View, one: list[Place], two: list[Place]) -> bool:
    return any(link.place in one for place in two for link in view.flow.sources.get(place, ()))


def _all_cut(view: View, between: list[tuple[list[Place], list[Place]]]) -> bool:
    """Whether no gradient passes from any call to the one before."""
    return not any(
        link.differentiable
        for one, two in between
        for place in two
        for link in view.flow.sources.get(place, ())
        if link.place in one
    )


def _line_between(view: View, between: list[tuple[list[Place], list[Place]]]) -> SourceLine | None:
    """The line that cuts off the state on purpose, between all of the calls; what was drawn or chosen is no state."""
    sites = [site for site in sites_of(view, "cut") if site.operation in _DETACHING]
    of_pairs = [
        [site.source for site in sites if not site.before.isdisjoint(one) and not site.after.isdisjoint(two)]
        for one, two in between
    ]
    return of_pairs[0][0] if all(of_pairs) else None


def _learns(view: View, call: list[Place]) -> bool:
    return any(link.differentiable for place in call for link in view.flow.sources.get(place, ()))


def _reads(view: View, call: list[Place]) -> bool:
    """Whether a call gets something of the input, besides its state."""
    sources = [link.place for place in call for link in view.flow.sources.get(place, ())]
    return any(view.flow.vertices[source].type == "input" for source in sources)


def _reaches_loss(view: View, call: list[Place]) -> bool:
    return not view.flow.downstream(call, differentiable=True).isdisjoint(view.losses)
