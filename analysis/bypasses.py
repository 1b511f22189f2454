"""Modules that the steps of one kind go around: what went through them in training goes straight on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from stepscope.analysis.flow import Flow
from stepscope.analysis.loss_inputs import is_floating
from stepscope.analysis.view import View, different_graphs
from stepscope.store import Step
from stepscope.store.records import ModuleInfo

_Links = dict[str, set[str]]


class Bypass(NamedTuple):
    """A module with weights that lies between two nodes in all training steps, and in no step of a kind.

    ``steps`` are those of the kind, in which ``after`` is computed from ``before`` without it.
    """

    module: str
    before: str
    after: str
    kind: str
    steps: tuple[int, ...]


def bypasses(view: View, least: int) -> Iterator[Bypass]:
    """All of them, of the kinds with at least two steps; ``least`` training steps are asked for."""
    kinds = sorted({step.kind for step in view.steps} - view.training_kinds)
    if len(view.training) < least or not kinds:
        return
    owners = [module.path for module in view.trial.network if module.parameters]
    usual = _always_there(view.training, owners)
    sinks, sources = _links(view.flow)
    for kind in kinds:
        steps = [step for step in view.steps if step.kind == kind]
        missing = [path for path in usual if not any(_is_there(step, path) for step in steps)]
        if len(steps) < 2 or not missing:
            continue
        flow = Flow(different_graphs(steps))
        others, _ = _links(flow)
        numbers = tuple(step.number for step in steps)
        for path in missing:
            ends = None if _is_used(flow, view.modules[path]) else _ends(path, sinks, sources, others)
            if ends is None or ends[1] not in view.modules or _is_hidden(flow, path, *ends):
                continue
            if not _is_other_data(view, steps, ends[0]):
                yield Bypass(path, *ends, kind, numbers)


def _is_used(flow: Flow, module: ModuleInfo) -> bool:
    """Whether a fused call takes the weights, and leaves the module out."""
    own = {name for info in module.parameters for name in info.names}
    return any(place.node in own for place in flow.sinks)


def _is_hidden(flow: Flow, path: str, before: str, after: str) -> bool:
    """Whether a module that contains it does more than to hand on what it was given: it may hide its inner ones."""
    ends = ({flow.vertices[place].operation for place in flow.of_node(node)} for node in (before, after))
    return path.startswith(f"{after}.") and len(set.union(*ends)) > 1


def _is_other_data(view: View, steps: list[Step], node: str) -> bool:
    """Whether an input of numbers shares no size, but for the batch, with what enters in training: it is codes, say."""
    places = view.flow.of_node(node)
    if not any(view.flow.vertices[place].type == "input" and is_floating(view, place) for place in places):
        return False
    there = _sizes(view, steps, node)
    return bool(there) and not any(one & other for one in there for other in _sizes(view, view.training, node))


def _sizes(view: View, steps: list[Step], node: str) -> set[frozenset[tuple[int, int]]]:
    """The sizes of a node's dimensions but the first, with their places from the end, in the first and last steps."""
    shapes = {view.shape(place, step) for step in (*steps[:3], *steps[-3:]) for place in view.all_flow.of_node(node)}
    return {frozenset((len(shape) - i, size) for i, size in enumerate(shape) if i) for shape in shapes if shape}


def _always_there(steps: list[Step], paths: Iterable[str]) -> list[str]:
    return [path for path in paths if all(_is_there(step, path) for step in steps)]


def _is_there(step: Step, path: str) -> bool:
    return step.layout.row(path, "value", None, None) is not None


def _links(flow: Flow) -> tuple[_Links, _Links]:
    """By the name of each node, those that are computed from it, and those that it is computed from; no weights."""
    sinks: _Links = defaultdict(set)
    sources: _Links = defaultdict(set)
    for place, links in flow.sinks.items():
        if flow.vertices[place].type in ("input", "calculated"):
            for link in links:
                sinks[place.node].add(link.place.node)
                sources[link.place.node].add(place.node)
    return sinks, sources


def _ends(path: str, sinks: _Links, sources: _Links, others: _Links) -> tuple[str, str] | None:
    """What stands before and behind a module in training, and next to each other in the other steps alone."""
    for before in sorted(_nearest(path, sources, others)):
        for after in sorted(_nearest(path, sinks, others) & others[before]):
            if after not in sinks[before] and before != after:
                return before, after
    return None


def _nearest(path: str, links: _Links, others: _Links) -> set[str]:
    """The first nodes in a direction that the other steps have, too."""
    known = set(others).union(*others.values())
    found: set[str] = set()
    seen, waiting = {path}, [path]
    while waiting:
        for node in links.get(waiting.pop(), set()) - seen:
            seen.add(node)
            (found.add if node in known else waiting.append)(node)
    return found
