"""The smallest things that can be a box: a tensor, or a node with its roles, together with the parameters it uses."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

from stepscope.store.records import Graph, TensorType
from stepscope.viewer.graph.naming import kind_of, module_of, qualifier, short_name
from stepscope.viewer.graph.splitting import share_boxes

WEIGHTS = ("parameter", "buffer")
_CARRY_GRADIENTS = ("calculated", "parameter", "loss")


@dataclass(frozen=True)
class Atom:
    """A box of tensors that is never taken apart.

    ``members`` are the vertices it shows itself, ``weights`` those of the parameters and buffers in its rows.
    ``module`` is where it lives; ``label``, ``kind`` (a class or an operation) and ``sub`` (a role) are its texts.
    """

    id: str
    type: TensorType
    label: str
    kind: str
    sub: str
    title: str
    module: tuple[str, ...]
    members: tuple[int, ...]
    weights: tuple[int, ...] = ()


@dataclass(frozen=True)
class AtomEdge:
    """One atom depends on another; ``blocked`` if no gradient passes although the source could have one."""

    source: int
    sink: int
    blocked: bool


def find_atoms(graph: Graph, *, parameters_as_boxes: bool) -> tuple[tuple[Atom, ...], tuple[int, ...]]:
    """The atoms in the graph's order, and for each vertex the number of its atom."""
    groups = share_boxes(graph)
    owners = {} if parameters_as_boxes else _owners(graph, groups)
    weights: dict[int, list[int]] = defaultdict(list)
    for number, owner in owners.items():
        weights[owner].extend(groups[number])
    alone = Counter(vertex.node for vertex in graph.vertices)
    kept = [number for number in range(len(groups)) if number not in owners]
    atoms = tuple(_atom(graph, groups[number], sorted(weights[number]), alone) for number in kept)
    atom_of = [0] * len(graph.vertices)
    for number, atom in enumerate(atoms):
        for vertex in (*atom.members, *atom.weights):
            atom_of[vertex] = number
    return atoms, tuple(atom_of)


def find_edges(graph: Graph, atom_of: tuple[int, ...]) -> tuple[AtomEdge, ...]:
    """The edges between different atoms, each once; several in one are blocked if all of them are."""
    blocked: dict[tuple[int, int], bool] = {}
    for edge in graph.edges:
        pair = (atom_of[edge.source], atom_of[edge.sink])
        if pair[0] != pair[1]:
            closed = not edge.differentiable and graph.vertices[edge.source].type in _CARRY_GRADIENTS
            blocked[pair] = blocked.get(pair, True) and closed
    return tuple(AtomEdge(source, sink, closed) for (source, sink), closed in blocked.items())


def _owners(graph: Graph, groups: list[tuple[int, ...]]) -> dict[int, int]:
    """The groups of parameters that one other group of the same module uses, and which that is."""
    home = {vertex: number for number, group in enumerate(groups) for vertex in group}
    consumers: dict[int, set[int]] = defaultdict(set)
    for edge in graph.edges:
        consumers[home[edge.source]].add(home[edge.sink])
    owners: dict[int, int] = {}
    for number, group in enumerate(groups):
        first = graph.vertices[group[0]]
        if first.type not in WEIGHTS or len(consumers[number]) != 1:
            continue
        (owner,) = consumers[number]
        sink = graph.vertices[groups[owner][0]]
        if sink.type not in WEIGHTS and module_of(sink) == module_of(first):
            owners[number] = owner
    return owners


def _atom(graph: Graph, group: tuple[int, ...], weights: list[int], alone: Counter[str]) -> Atom:
    last = graph.vertices[group[-1]]
    only = len(group) == 1
    sub = qualifier(last, alone=alone[last.node] == 1) if only or last.lag else ""
    title = f"{last.node} ({sub})" if sub else last.node
    identity = f"n:{last.node}" if not sub else f"n:{last.node}\n{last.role if only else ''}\n{last.lag}"
    return Atom(
        identity, last.type, short_name(last), kind_of(last), sub, title, module_of(last), group, tuple(weights)
    )  # fmt: skip
