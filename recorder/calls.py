"""Finds the calls of a step that are worth knowing although what they made has no name; on the writer's thread."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from stepscope.recorder.edges import Ancestors
from stepscope.recorder.frames import Place
from stepscope.recorder.job import StepJob

_MOST = 64
"""Cuts of a step: a net that runs under ``no_grad`` beside the one that trains has many."""


_READ = "grad"
"""Reading ``.grad`` of a tensor takes nothing of its value."""


class FoundCall(NamedTuple):
    """A call with the named tensors before and after it, by index."""

    operation: str
    place: Place
    before: tuple[int, ...]
    after: tuple[int, ...]


def find_calls(job: StepJob) -> list[FoundCall]:
    """What cut a gradient's way, first where something was computed from the rest; then what else was called."""
    noted = []
    for (operation, node), place in job.calls.items():
        after = tuple(index for index, named in enumerate(job.named) if node and named.node == node)
        if after or not node:
            noted.append(FoundCall(operation, place, (), after[:1]))
    cuts = sorted(dict.fromkeys(_cuts(job)), key=lambda call: not call.after)
    return [*cuts[:_MOST], *noted]


def _cuts(job: StepJob) -> Iterable[FoundCall]:
    nodes = _cut_nodes(job)
    if not nodes:
        return
    ancestors = Ancestors(job.parents, job.named_nodes, job.carries_grad)
    after = _named_after(job, nodes)
    for node in nodes:
        before = tuple(sorted(ancestors.behind(node)))
        place = job.places[node]
        is_logged = all(job.named[index].type == "loss" for index in before)  # ``loss.item()``
        if place is not None and before and not is_logged:
            yield FoundCall(job.operations[node], place, before, tuple(sorted(after[node])))


def _cut_nodes(job: StepJob) -> list[int]:
    """The nodes without a name that require no gradient although they were computed from one that does.

    None in a step that computes nothing with a gradient: there it is ``no_grad`` as a whole.
    """
    carries, named = job.carries_grad, job.named_nodes
    if not any(carried and parents for carried, parents in zip(carries, job.parents, strict=True)):
        return []
    return [
        node
        for node, parents in enumerate(job.parents)
        if parents
        and not carries[node]
        and node not in named
        and job.operations[node] != _READ
        and any(carries[parent] for parent in parents)
    ]


def _named_after(job: StepJob, cuts: list[int]) -> dict[int, set[int]]:
    """For each of these nodes the first named ones that were computed from it."""
    found: dict[int, set[int]] = defaultdict(set)
    behind: dict[int, frozenset[int]] = {}
    own = set(cuts)
    for node in range(cuts[0], len(job.parents)):
        here = frozenset().union(*(behind[parent] for parent in job.parents[node] if parent in behind))
        if node in own:
            here |= {node}
        if here and node in job.named_nodes:
            for cut in here:
                found[cut].add(job.named_nodes[node])
        elif here:
            behind[node] = here
    return found
