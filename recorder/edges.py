"""Finds the edges between named tensors in the trace of a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from stepscope.recorder.job import StepJob

_Front = tuple[int, ...]
_WIDEST = 32
"""How many nodes a front may hold before its own node stands for it: bounds the memory, not what is found."""


class NamedEdge(NamedTuple):
    """From one named tensor to another, by index."""

    source: int
    sink: int
    differentiable: bool


def find_edges(job: StepJob) -> list[NamedEdge]:
    """The edges of a step: each named tensor's nearest named ancestors.

    A path is differentiable if every tensor along it, both ends included, requires a gradient.
    """
    everything = Ancestors(job.parents, job.named_nodes)
    along_gradient = Ancestors(job.parents, job.named_nodes, job.carries_grad)
    edges: list[NamedEdge] = []
    for node, index in job.named_nodes.items():
        passed = along_gradient.behind(node) if job.carries_grad[node] else set()
        edges.extend(NamedEdge(source, index, source in passed) for source in sorted(everything.behind(node)))
    return edges


class Ancestors:
    """The nearest named ancestors of every node of a trace, found in one pass over it.

    Each node without a name has a *front*: what one meets first, going backwards from it. Long chains between names
    share one front, so that many names behind the same chain do not walk it again and again. Where a front would
    become too wide, the node itself is the front, and is looked behind when it is met.
    """

    def __init__(
        self, parents: Sequence[tuple[int, ...]], named: dict[int, int], allowed: Sequence[bool] | None = None
    ) -> None:
        self._parents = parents
        self._named = named
        self._allowed = allowed
        self._fronts: list[_Front] = []
        fronts = self._fronts
        for node, around in enumerate(parents):
            if node in named:
                fronts.append((node,))
            elif len(around) == 1 and around[0] < node:  # most are links of a chain
                fronts.append(fronts[around[0]] if allowed is None or allowed[around[0]] else ())
            else:
                fronts.append(self._front_of(node, around))

    def behind(self, start: int) -> set[int]:
        """The indices of the named nodes from which a node comes, with no named one between."""
        named, fronts, allowed = self._named, self._fronts, self._allowed
        found: set[int] = set()
        seen: set[int] = set()
        stack = [start]
        while stack:
            for parent in self._parents[stack.pop()]:
                if allowed is not None and not allowed[parent]:
                    continue
                for node in fronts[parent]:
                    if node in named:
                        found.add(named[node])
                    elif node not in seen:
                        seen.add(node)
                        stack.append(node)
        return found

    def _front_of(self, node: int, around: tuple[int, ...]) -> _Front:
        allowed = self._allowed
        front: dict[int, None] = {}
        for parent in around:
            if parent >= node:  # ``connect`` adds parents afterwards
                return (node,)
            if allowed is None or allowed[parent]:
                front.update(dict.fromkeys(self._fronts[parent]))
        return tuple(front) if len(front) <= _WIDEST else (node,)
