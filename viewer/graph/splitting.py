"""Which tensors share a box: those of one node, unless that would make the picture run in circles."""

from __future__ import annotations

from collections import defaultdict

from stepscope.store.records import Graph
from stepscope.viewer.graph.components import cyclic_components


def share_boxes(graph: Graph) -> list[tuple[int, ...]]:
    """The vertices of each box, in the graph's order.

    The roles of a node share a box. A carried tensor (``lag`` above 0) stands apart from what this iteration makes, and
    a node with one role computed from another (a memory, a module called twice) gets a box for each of its roles.
    """
    together: dict[tuple[str, int], list[int]] = defaultdict(list)
    for number, vertex in enumerate(graph.vertices):
        together[vertex.node, vertex.lag].append(number)
    groups = list(together.values())
    for rule in (_in_circle_with_itself, _in_any_circle):
        split = rule(graph, groups)
        if not split:
            continue
        groups = [part for number, group in enumerate(groups) for part in _parts(group, number in split)]
    return sorted(tuple(group) for group in groups)


def _parts(group: list[int], split: bool) -> list[list[int]]:
    return [[vertex] for vertex in group] if split else [group]


def _in_any_circle(graph: Graph, groups: list[list[int]]) -> set[int]:
    """The groups of several vertices that lie on a circle."""
    circles = cyclic_components(_sinks(graph, groups))
    return {number for circle in circles for number in circle if len(groups[number]) > 1}


def _in_circle_with_itself(graph: Graph, groups: list[list[int]]) -> set[int]:
    """The groups in which one vertex is computed from another of the same group."""
    home = _home(groups)
    direct = {home[e.source] for e in graph.edges if home[e.source] == home[e.sink] and e.source != e.sink}
    suspects = _in_any_circle(graph, groups) - direct
    if not suspects:
        return direct
    sinks: dict[int, list[int]] = defaultdict(list)
    for edge in graph.edges:
        sinks[edge.source].append(edge.sink)
    return direct | {number for number in suspects if _reaches_itself(set(groups[number]), sinks)}


def _reaches_itself(group: set[int], sinks: dict[int, list[int]]) -> bool:
    stack = [sink for vertex in group for sink in sinks[vertex]]
    seen = set(stack)
    while stack:
        vertex = stack.pop()
        if vertex in group:
            return True
        fresh = [sink for sink in sinks[vertex] if sink not in seen]
        seen.update(fresh)
        stack += fresh
    return False


def _home(groups: list[list[int]]) -> dict[int, int]:
    return {vertex: number for number, group in enumerate(groups) for vertex in group}


def _sinks(graph: Graph, groups: list[list[int]]) -> list[list[int]]:
    home = _home(groups)
    sinks: list[set[int]] = [set() for _ in groups]
    for edge in graph.edges:
        if home[edge.source] != home[edge.sink]:
            sinks[home[edge.source]].add(home[edge.sink])
    return [sorted(some) for some in sinks]
