"""Strongly connected components."""

from __future__ import annotations

from collections.abc import Sequence


def cyclic_components(sinks: Sequence[Sequence[int]]) -> list[list[int]]:
    """The groups of two or more vertices that reach each other (Tarjan 1972, without recursion).

    Args:
        sinks: for each vertex, the vertices its edges go to.
    """
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    waiting: set[int] = set()
    found: list[list[int]] = []
    for root in range(len(sinks)):
        work = [(root, 0)] if root not in index else []
        while work:
            vertex, at = work.pop()
            if at == 0:
                index[vertex] = low[vertex] = len(index)
                stack.append(vertex)
                waiting.add(vertex)
            step = _next_unseen(vertex, at, sinks[vertex], index, low, waiting)
            if step < len(sinks[vertex]):
                work += [(vertex, step + 1), (sinks[vertex][step], 0)]
                continue
            if work:
                parent = work[-1][0]
                low[parent] = min(low[parent], low[vertex])
            if low[vertex] == index[vertex]:
                found.append(_take(vertex, stack, waiting))
    return [sorted(group) for group in found if len(group) > 1]


def _next_unseen(
    vertex: int, at: int, sinks: Sequence[int], index: dict[int, int], low: dict[int, int], waiting: set[int]
) -> int:
    """The position of the first sink from ``at`` on that was not visited yet."""
    while at < len(sinks) and sinks[at] in index:
        if sinks[at] in waiting:
            low[vertex] = min(low[vertex], index[sinks[at]])
        at += 1
    return at


def _take(vertex: int, stack: list[int], waiting: set[int]) -> list[int]:
    group = []
    while True:
        top = stack.pop()
        waiting.discard(top)
        group.append(top)
        if top == vertex:
            return group
