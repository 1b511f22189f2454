"""Finds the edges between named tensors in the trace of a step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    everything = _Ancestors(job.parents, job.named_nodes)
    along_gradient = _Ancestors(job.parents, job.named_nodes, job.carries_grad)
    edges: list[NamedEdge] = []
    for node, index in job.named_nodes.items():
        passed = along_gradient.behind(node) if job.carries_grad[node] else set()
        edges.extend(NamedEdge(source, index, source in passed) for source in sorted(everything.behind(node)))
    return edges


class _Ancestors:
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
        for node in range(len(parents)):
            self._fronts.append((node,) if node in named else self._front_of(node))

    def behind(self, start: int) -> set[int]:
        """The indices of the named nodes from which a node comes, with no named one between."""
        found: set[int] = set()
        seen: set[int] = {start}
        stack = [start]
        while stack:
            for node in self._fronts_behind(stack.pop()):
                if node in seen:
                    continue
                seen.add(node)
                index = self._named.get(node)
                if index is None:
                    stack.append(node)
                else:
                    found.add(index)
        return found

    def _front_of(self, node: int) -> _Front:
        parents = self._allowed_parents(node)
        if any(parent >= node for parent in parents):  # ``connect`` adds parents afterwards
            return (node,)
        if len(parents) == 1:
            return self._fronts[parents[0]]
        front = tuple(dict.fromkeys(one for parent in parents for one in self._fronts[parent]))
        return front if len(front) <= _WIDEST else (node,)

    def _fronts_behind(self, node: int) -> Iterable[int]:
        return (one for parent in self._allowed_parents(node) for one in self._fronts[parent])

    def _allowed_parents(self, node: int) -> Sequence[int]:
        parents = self._parents[node]
        return parents if self._allowed is None else [parent for parent in parents if self._allowed[parent]]
