"""Graphs for the panel's tests, written as text or drawn at random."""

from __future__ import annotations

import re
from collections.abc import Mapping

import hypothesis.strategies as st

from stepscope.store.records import Edge, Graph, TensorType, Vertex

_TYPES: dict[str, TensorType] = {"input": "input", "target": "target", "loss": "loss"}
_ENDINGS: dict[str, TensorType] = {"weight": "parameter", "bias": "parameter", "mean": "buffer"}
_PATHS = ("", "net", "net.left", "net.left.deep", "net.right", "other", "net.0", "net.1")
_KINDS: tuple[TensorType, ...] = ("input", "parameter", "buffer", "calculated", "calculated", "target", "loss")


def graph_of(text: str, *, types: Mapping[str, TensorType] | None = None) -> Graph:
    """A graph from lines such as ``input -> net.fc -> loss``; ``a ..> b`` where no gradient passes.

    ``node:role`` names a role, ``node@2`` what was made two iterations ago. Types come from the names ``input``,
    ``target``, ``loss`` and the endings ``.weight``, ``.bias`` and ``.mean``, or are given; all else is calculated.
    A node with others below its name (``net.fc`` of ``net.fc.weight``) is that module's output.
    """
    numbers: dict[str, int] = {}
    edges: dict[tuple[int, int], bool] = {}
    for line in filter(None, (line.strip() for line in re.split(r"[\n;]", text))):
        names = re.split(r"\s*(->|\.\.>)\s*", line)
        for name in names[::2]:
            numbers.setdefault(name, len(numbers))
        for place in range(1, len(names), 2):
            edges[numbers[names[place - 1]], numbers[names[place + 1]]] = names[place] == "->"
    around = {path for name in numbers for path in _modules_around(name)}
    vertices = tuple(_vertex(name, types or {}, around) for name in numbers)
    return Graph(vertices, tuple(Edge(source, sink, flows) for (source, sink), flows in edges.items()))


def _modules_around(name: str) -> list[str]:
    parts = re.split("[:@]", name)[0].split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts))]


def _vertex(name: str, types: Mapping[str, TensorType], modules: set[str]) -> Vertex:
    rest, _, lag = name.partition("@")
    node, _, role = rest.partition(":")
    type_ = types.get(node) or _TYPES.get(node) or _ENDINGS.get(node.rpartition(".")[2], "calculated")
    return Vertex(node, role or "output", int(lag or 0), type_, node if node in modules else "", "", "", None)


def chain(length: int, prefix: str = "t") -> str:
    """The text of ``input -> t0 -> t1 -> ...``."""
    return " -> ".join(["input", *(f"{prefix}{number}" for number in range(length))])


@st.composite
def module_graphs(draw: st.DrawFn) -> Graph:
    """Graphs without circles over a small tree of modules, with several roles, lags, and blocked edges."""
    count = draw(st.integers(1, 22))
    vertices: dict[tuple[str, str, int], Vertex] = {}
    for number in range(count):
        path = draw(st.sampled_from(_PATHS))
        node = f"{path}.t{number % 17}" if path else f"t{number % 17}"
        role = draw(st.sampled_from(["output", "call 1"]))
        lag = draw(st.sampled_from([0, 0, 0, 0, 1]))
        module = draw(st.sampled_from([path, ""]))
        vertex = Vertex(node, role, lag, draw(st.sampled_from(_KINDS)), module, "Linear", "add", None)
        vertices[node, role, lag] = vertex
    pairs = st.tuples(st.integers(0, len(vertices) - 1), st.integers(0, len(vertices) - 1)).filter(
        lambda p: p[0] < p[1]
    )
    chosen = draw(st.lists(pairs, max_size=2 * count, unique=True)) if len(vertices) > 1 else []
    return Graph(tuple(vertices.values()), tuple(Edge(*pair, draw(st.booleans())) for pair in chosen))


def modules_of(graph: Graph) -> list[str]:
    """The paths of all modules that the names and the records of a graph tell of."""
    dotted = {path for vertex in graph.vertices for path in (vertex.module, vertex.node.rpartition(".")[0]) if path}
    return sorted({".".join(path.split(".")[:depth]) for path in dotted for depth in range(1, path.count(".") + 2)})
