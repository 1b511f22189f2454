"""The nodes of a trial: every named place of the computation, in the order in which data flows through them."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stepscope.store.records import Graph, SourceLine, TensorInfo, TensorType, Vertex


@dataclass(frozen=True)
class Node:
    """A named place in the computation, over all steps of a trial.

    Attributes:
        name: ``"model.encoder.0"``.
        type: its tensor type.
        roles: all roles it was seen in, in order.
        module, module_class: the module whose output it is, or inside which it was made; empty if there is none.
        operation: the torch function that made it.
        source: the line of the user's code that made it, if known.
        quantities: what was measured of it: ``"value"``, ``"gradient"``, ...
    """

    name: str
    type: TensorType
    roles: tuple[str, ...]
    module: str
    module_class: str
    operation: str
    source: SourceLine | None
    quantities: tuple[str, ...]


def collect_nodes(graphs: Iterable[Graph], layouts: Iterable[Sequence[TensorInfo]]) -> tuple[Node, ...]:
    """All nodes, in data-flow order over the union of the graphs; weights stand before what they feed."""
    first: dict[str, Vertex] = {}
    roles: dict[str, dict[str, None]] = defaultdict(dict)
    quantities: dict[str, dict[str, None]] = defaultdict(dict)
    types: dict[str, TensorType] = {}
    edges: set[tuple[str, str]] = set()
    for graph in graphs:
        _collect_graph(graph, first, roles, edges)
    for tensors in layouts:
        for tensor in tensors:
            types.setdefault(tensor.node, tensor.type)
            roles[tensor.node].setdefault(tensor.role)
            quantities[tensor.node].setdefault(tensor.quantity)
    names = dict.fromkeys([*first, *types])
    types.update({name: vertex.type for name, vertex in first.items()})
    order = data_flow_order(list(names), edges, {name for name in names if types[name] in ("parameter", "buffer")})
    return tuple(
        _node(name, first.get(name), types[name], tuple(roles[name]), tuple(quantities[name])) for name in order
    )


def _collect_graph(
    graph: Graph, first: dict[str, Vertex], roles: dict[str, dict[str, None]], edges: set[tuple[str, str]]
) -> None:
    vertices = graph.vertices
    for vertex in vertices:
        known = first.get(vertex.node)
        if known is None or (known.lag and not vertex.lag):
            first[vertex.node] = vertex
        if not vertex.lag:
            roles[vertex.node].setdefault(vertex.role)
    for edge in graph.edges:
        source, sink = vertices[edge.source], vertices[edge.sink]
        if not source.lag and source.node != sink.node:
            edges.add((source.node, sink.node))


def _node(
    name: str, vertex: Vertex | None, type: TensorType, roles: tuple[str, ...], quantities: tuple[str, ...]
) -> Node:
    if vertex is None:
        return Node(name, type, roles, "", "", "", None, quantities)
    return Node(
        name, type, roles, vertex.module, vertex.module_class, vertex.operation, vertex.source, quantities
    )  # fmt: skip


def data_flow_order(names: Sequence[str], edges: Iterable[tuple[str, str]], weights: set[str]) -> list[str]:
    """A topological order that keeps the given order where it is free to; cycles are cut at their first node.

    Weights (parameters, buffers) depend on nothing; each is put right before the first node that it feeds.
    """
    position = {name: index for index, name in enumerate(names)}
    sinks: dict[str, list[str]] = defaultdict(list)
    missing = dict.fromkeys(names, 0)
    feeds: dict[str, list[str]] = defaultdict(list)
    for source, sink in edges:
        if source in weights:
            feeds[sink].append(source)
        else:
            sinks[source].append(sink)
            missing[sink] += 1
    order = _topological([name for name in names if name not in weights], position, sinks, missing)
    placed: dict[str, None] = {}
    for name in order:
        for weight in sorted(feeds[name], key=position.__getitem__):
            placed.setdefault(weight)
        placed.setdefault(name)
    for name in names:
        placed.setdefault(name)
    return list(placed)


def _topological(
    names: Sequence[str], position: dict[str, int], sinks: dict[str, list[str]], missing: dict[str, int]
) -> list[str]:
    ready = [(position[name], name) for name in names if missing[name] == 0]
    heapq.heapify(ready)
    waiting = dict.fromkeys(name for name in names if missing[name])
    order: list[str] = []
    done: set[str] = set()
    while ready or waiting:
        if not ready:  # a cycle: go on with its first node
            name = next(iter(waiting))
            heapq.heappush(ready, (position[name], name))
        _, name = heapq.heappop(ready)
        if name in done:
            continue
        done.add(name)
        waiting.pop(name, None)
        order.append(name)
        for sink in sinks[name]:
            missing[sink] -= 1
            if missing[sink] == 0 and sink not in done:
                heapq.heappush(ready, (position[sink], sink))
    return order
