"""Columns: which cells stand left of which."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from stepscope.viewer.graph.cells import Link


def backward_pairs(count: int, sinks: Sequence[Sequence[int]]) -> set[tuple[int, int]]:
    """Edges that, turned around, leave no circle: those that a depth-first walk meets on its own way.

    Args:
        count: how many vertices there are.
        sinks: for each vertex, those its edges go to.
    """
    has_source = {sink for some in sinks for sink in some}
    order = sorted(range(count), key=lambda vertex: vertex in has_source)
    state = [0] * count
    back: set[tuple[int, int]] = set()
    for root in order:
        stack = [(root, 0)] if not state[root] else []
        state[root] = max(state[root], 1)
        while stack:
            vertex, at = stack.pop()
            if at == len(sinks[vertex]):
                state[vertex] = 2
                continue
            stack.append((vertex, at + 1))
            sink = sinks[vertex][at]
            if state[sink] == 1:
                back.add((vertex, sink))
            elif state[sink] == 0:
                state[sink] = 1
                stack.append((sink, 0))
    return back


def topological(count: int, sinks: Sequence[Sequence[int]]) -> list[int]:
    """The vertices of a graph without circles, sources first."""
    missing = [0] * count
    for some in sinks:
        for sink in some:
            missing[sink] += 1
    ready = [vertex for vertex in range(count) if not missing[vertex]]
    for vertex in ready:
        for sink in sinks[vertex]:
            missing[sink] -= 1
            if not missing[sink]:
                ready.append(sink)
    return ready


def assign_layers(
    count: int, links: Sequence[Link], *, late: Collection[int], last: Collection[int]
) -> tuple[list[int], set[tuple[int, int]]]:
    """The layer of each cell by longest path, and the pairs that run backwards.

    Args:
        count: how many cells there are.
        links: between these cells; links to and from ports are left out.
        late: cells to stand right before what they feed.
        last: cells that belong into the last layer, if nothing depends on them.
    """
    forward: list[list[int]] = [[] for _ in range(count)]
    for pair in dict.fromkeys((link.tail, link.head) for link in links):
        forward[pair[0]].append(pair[1])
    back = backward_pairs(count, forward)
    for tail, head in back:
        forward[tail].remove(head)
    for tail, head in back:
        if tail not in forward[head]:
            forward[head].append(tail)
    order = topological(count, forward)
    layer = [0] * count
    for vertex in order:
        for sink in forward[vertex]:
            layer[sink] = max(layer[sink], layer[vertex] + 1)
    rightmost = max(layer, default=0)
    for vertex in reversed(order):
        if vertex in late and forward[vertex]:
            layer[vertex] = max(layer[vertex], min(layer[sink] for sink in forward[vertex]) - 1)
        elif vertex in last and not forward[vertex]:
            layer[vertex] = rightmost
    return layer, back
