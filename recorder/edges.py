"""Finds the edges between named tensors in the trace of a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from stepscope.recorder.job import StepJob


class NamedEdge(NamedTuple):
    """From one named tensor to another, by index."""

    source: int
    sink: int
    differentiable: bool


def find_edges(job: StepJob) -> list[NamedEdge]:
    """The edges of a step: each named tensor's nearest named ancestors.

    A path is differentiable if every tensor along it, both ends included, requires a gradient. The search goes
    backwards from each named tensor and stops at named ones, with an explicit stack: graphs may be deep.
    """
    edges: list[NamedEdge] = []
    for node, index in job.named_nodes.items():
        reached = _named_behind(node, job.parents, job.named_nodes)
        along_gradient = (
            _named_behind(node, job.parents, job.named_nodes, job.carries_grad) if job.carries_grad[node] else set()
        )
        for source in sorted(reached):
            edges.append(NamedEdge(source, index, source in along_gradient))
    return edges


def _named_behind(
    start: int,
    parents: Sequence[tuple[int, ...]],
    named: dict[int, int],
    allowed: Sequence[bool] | None = None,
) -> set[int]:
    found: set[int] = set()
    seen: set[int] = set()
    stack = [start]
    while stack:
        for parent in parents[stack.pop()]:
            if parent in seen or (allowed is not None and not allowed[parent]):
                continue
            seen.add(parent)
            index = named.get(parent)
            if index is None:
                stack.append(parent)
            else:
                found.add(index)
    return found
