"""All of a drawing that does not depend on which modules are open."""

from __future__ import annotations

from dataclasses import dataclass

from stepscope.store.records import Graph
from stepscope.viewer.graph.atoms import Atom, AtomEdge, find_atoms, find_edges
from stepscope.viewer.graph.modules import Module
from stepscope.viewer.graph.tree import build_tree


@dataclass(frozen=True)
class Outline:
    """A graph's atoms, how they depend on each other, and the modules they live in."""

    graph: Graph
    atoms: tuple[Atom, ...]
    atom_of: tuple[int, ...]
    edges: tuple[AtomEdge, ...]
    root: Module


def outline_of(graph: Graph, *, parameters_as_boxes: bool) -> Outline:
    """Find the atoms of a graph and their modules."""
    atoms, atom_of = find_atoms(graph, parameters_as_boxes=parameters_as_boxes)
    tree = build_tree([atom.module for atom in atoms])
    return Outline(graph, atoms, atom_of, find_edges(graph, atom_of), tree)
