"""How data flows through the nodes of a trial: one graph, joined from those of its steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from stepscope.store.records import Graph, SourceLine, Vertex


class Place(NamedTuple):
    """A role of a node."""

    node: str
    role: str


class Link(NamedTuple):
    """The other end of an edge, whether a gradient can flow along it, and by how many iterations it is carried."""

    place: Place
    differentiable: bool
    lag: int


class Site(NamedTuple):
    """A call of the user's code between some places; see ``Call``."""

    kind: str
    operation: str
    source: SourceLine
    before: frozenset[Place]
    after: frozenset[Place]


class Flow:
    """Who computes whom, over all iterations and steps that were looked at.

    Attributes:
        vertices: every place with its vertex.
        sources, sinks: for each place, the edges towards it and from it.
        sites: the calls between them, each once.
    """

    def __init__(self, graphs: Iterable[Graph]) -> None:
        self.vertices: dict[Place, Vertex] = {}
        self.sites: dict[Site, None] = {}
        links: dict[tuple[Place, Place, int], bool] = {}
        for graph in graphs:
            self._add(graph, links)
        self._places: dict[str, list[Place]] = defaultdict(list)
        for place in self.vertices:
            self._places[place.node].append(place)
        self.sources: dict[Place, list[Link]] = defaultdict(list)
        self.sinks: dict[Place, list[Link]] = defaultdict(list)
        for (source, sink, lag), differentiable in links.items():
            self.sources[sink].append(Link(source, differentiable, lag))
            self.sinks[source].append(Link(sink, differentiable, lag))

    def _add(self, graph: Graph, links: dict[tuple[Place, Place, int], bool]) -> None:
        places = [Place(vertex.node, vertex.role) for vertex in graph.vertices]
        for place, vertex in zip(places, graph.vertices, strict=True):
            known = self.vertices.get(place)
            if known is None or (known.lag and not vertex.lag):
                self.vertices[place] = vertex
        for edge in graph.edges:
            key = (places[edge.source], places[edge.sink], graph.vertices[edge.source].lag)
            links[key] = links.get(key, False) or edge.differentiable
        for call in graph.calls:
            before, after = (frozenset(places[index] for index in side) for side in (call.before, call.after))
            self.sites[Site(call.kind, call.operation, call.source, before, after)] = None

    def of_node(self, node: str) -> list[Place]:
        """The places of a node."""
        return list(self._places.get(node, ()))

    def of_type(self, *types: str) -> list[Place]:
        """The places of these tensor types."""
        return [place for place, vertex in self.vertices.items() if vertex.type in types]

    def upstream(self, start: Iterable[Place], *, differentiable: bool = False) -> set[Place]:
        """Everything that these places were computed from, themselves included."""
        return _reach(start, lambda place: self.sources.get(place, ()), differentiable)

    def downstream(self, start: Iterable[Place], *, differentiable: bool = False) -> set[Place]:
        """Everything that was computed from these places, themselves included."""
        return _reach(start, lambda place: self.sinks.get(place, ()), differentiable)

    def same_tensor(self, place: Place) -> Iterator[Place]:
        """The place and what stands behind it under other names: a model's output is its last module's."""
        seen: set[Place] = set()
        here: Place | None = place
        while here is not None and here not in seen:
            seen.add(here)
            yield here
            here = self._alias_of(here)

    def _alias_of(self, place: Place) -> Place | None:
        vertex = self.vertices[place]
        behind = [link.place for link in self.sources.get(place, ()) if not link.lag]
        if len(behind) != 1:
            return None
        other = self.vertices[behind[0]]
        same = other.operation == vertex.operation and other.source == vertex.source and vertex.operation
        return behind[0] if same and other.type == "calculated" else None


def _reach(start: Iterable[Place], links: Callable[[Place], Iterable[Link]], differentiable: bool) -> set[Place]:
    found = set(start)
    waiting = list(found)
    while waiting:
        for link in links(waiting.pop()):
            if link.place not in found and (link.differentiable or not differentiable):
                found.add(link.place)
                waiting.append(link.place)
    return found
