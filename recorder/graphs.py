"""Cuts the edges of a step into one graph an iteration."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from stepscope.recorder.calls import FoundCall, find_calls
from stepscope.recorder.edges import NamedEdge, find_edges
from stepscope.recorder.frames import source_line
from stepscope.recorder.job import StepJob
from stepscope.recorder.named import Named
from stepscope.store.records import WHOLE_STEP, Call, Edge, Graph, Vertex

_WEIGHTS = ("parameter", "buffer")


def build_graphs(job: StepJob) -> tuple[Graph, ...]:
    """The graph of each iteration; ``settle`` must have been called."""
    edges = find_edges(job)
    shown_with = _iterations_of_whole_step(job.named, edges)
    vertices = [_vertex(job, named) for named in job.named]
    tensors = _by_iteration([tensor.iteration for tensor in job.named])
    calls = find_calls(job)
    called = _by_iteration([_iteration_of(job, call) for call in calls])
    sinks = _by_iteration([job.named[edge.sink].iteration for edge in edges])
    return tuple(
        _graph_of(
            iteration,
            job.named,
            _of(iteration, tensors),
            [edges[index] for index in _of(iteration, sinks)],
            shown_with,
            vertices,
            [calls[index] for index in _of(iteration, called)],
        )
        for iteration in range(max(job.iterations, 1))
    )


def _by_iteration(iterations: Sequence[int]) -> dict[int, list[int]]:
    """The positions of each iteration, so that no graph looks at what belongs to others alone."""
    found: dict[int, list[int]] = defaultdict(list)
    for position, iteration in enumerate(iterations):
        found[iteration].append(position)
    return found


def _of(iteration: int, positions: dict[int, list[int]]) -> list[int]:
    """The positions of an iteration and those of the whole step, in order."""
    return sorted([*positions.get(iteration, ()), *positions.get(WHOLE_STEP, ())])


def _vertex(job: StepJob, named: Named) -> Vertex:
    node = named.trace_node
    return Vertex(
        node=named.node,
        role=named.role,
        lag=0,
        type=named.type,
        module=named.module,
        module_class=named.module_class,
        operation=job.operations[node],
        source=source_line(job.places[node]),
        whole_step=named.iteration == WHOLE_STEP,
    )


def _iterations_of_whole_step(named: Sequence[Named], edges: Sequence[NamedEdge]) -> dict[int, set[int]]:
    """For tensors of the whole step, the iterations that they, or what they are connected to, touch.

    Empty for those that touch none. Weights join nothing together: they are shown where they are used.
    """
    whole = {i for i, tensor in enumerate(named) if tensor.iteration == WHOLE_STEP}
    touched: dict[int, set[int]] = {i: set() for i in whole}
    neighbours: dict[int, set[int]] = defaultdict(set)
    for source, sink, _ in edges:
        for one, other in ((source, sink), (sink, source)):
            if one in whole and other not in whole:
                touched[one].add(named[other].iteration)
            elif one in whole and named[one].type not in _WEIGHTS and named[other].type not in _WEIGHTS:
                neighbours[one].add(other)
    _spread(touched, neighbours)
    for source, sink, _ in edges:
        if source in whole and sink in whole and named[source].type in _WEIGHTS:
            touched[source] |= touched[sink]
    return touched


def _spread(touched: dict[int, set[int]], neighbours: dict[int, set[int]]) -> None:
    """Let every connected part share the iterations that any of it touches."""
    seen: set[int] = set()
    for start in list(touched):
        if start in seen or not neighbours[start]:
            continue
        part, stack = {start}, [start]
        while stack:
            for other in neighbours[stack.pop()]:
                if other not in part:
                    part.add(other)
                    stack.append(other)
        seen |= part
        together = set().union(*(touched[index] for index in part))
        for index in part:
            touched[index] = together  # one set for all of them: nobody adds to it


def _graph_of(
    iteration: int,
    named: Sequence[Named],
    tensors: Sequence[int],
    edges: Sequence[NamedEdge],
    shown_with: dict[int, set[int]],
    vertices: Sequence[Vertex],
    calls: Sequence[FoundCall],
) -> Graph:
    """The graph of one iteration, out of the ``tensors``, the ``edges`` to them and the ``calls`` that may be its."""

    def belongs(index: int) -> bool:
        if named[index].iteration != WHOLE_STEP:
            return named[index].iteration == iteration
        return not shown_with[index] or iteration in shown_with[index]

    shown = [index for index in tensors if belongs(index)]
    position: dict[int, int] = {}
    found: list[Vertex] = []
    carried = dict.fromkeys(
        edge.source for edge in edges if named[edge.sink].iteration == iteration and not belongs(edge.source)
    )
    for index in (*carried, *shown):
        position[index] = len(found)
        lag = iteration - named[index].iteration if index in carried and named[index].iteration >= 0 else 0
        found.append(_with_lag(vertices[index], lag))
    kept = tuple(
        Edge(position[edge.source], position[edge.sink], edge.differentiable)
        for edge in edges
        if edge.source in position and edge.sink in position and belongs(edge.sink)
    )
    return Graph(tuple(found), kept, tuple(_calls_among(position, calls)))


def _iteration_of(job: StepJob, call: FoundCall) -> int:
    """Of what was computed from it, else of what it was computed from."""
    around = call.after or call.before
    return job.named[around[-1]].iteration if around else WHOLE_STEP


def _calls_among(position: Mapping[int, int], calls: Sequence[FoundCall]) -> Iterator[Call]:
    """The calls of a graph, with its own indices."""
    for call in calls:
        source = source_line(call.place)
        before, after = (tuple(position[i] for i in side if i in position) for side in (call.before, call.after))
        if source is not None and bool(before or after) == bool(call.before or call.after):
            yield Call(call.kind, call.operation, source, before, after)


def _with_lag(vertex: Vertex, lag: int) -> Vertex:
    if lag == 0:
        return vertex
    return Vertex(
        vertex.node, vertex.role, lag, vertex.type, vertex.module, vertex.module_class,
        vertex.operation, vertex.source, vertex.whole_step,
    )  # fmt: skip
