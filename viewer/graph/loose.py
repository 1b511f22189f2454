"""Sides of boxes where one would expect lines, and there are none."""

from __future__ import annotations

from collections.abc import Collection

from stepscope.store.records import Vertex
from stepscope.viewer.graph.outline import Outline
from stepscope.viewer.graph.scene import Scene

_SOURCES = ("input", "target", "parameter", "buffer")


def loose_sides(outline: Outline, scene: Scene, box: int, continued: Collection[tuple[str, str]]) -> dict[str, bool]:
    """Whether a box depends on nothing (``left``), and whether nothing depends on it (``right``), against expectation.

    Inputs, targets, parameters and what an earlier iteration made are not expected to depend on anything; on a loss,
    and on what a later iteration uses, nothing is expected to depend.
    """
    atoms = [outline.atoms[number] for number in scene.boxes[box].atoms]
    members = [outline.graph.vertices[vertex] for atom in atoms for vertex in atom.members]
    weights = any(atom.weights for atom in atoms)
    return {
        "left": not scene.sources[box] and not weights and not all(_is_source(vertex) for vertex in members),
        "right": not scene.sinks[box] and not any(_is_end(vertex, continued) for vertex in members),
    }


def _is_source(vertex: Vertex) -> bool:
    return vertex.type in _SOURCES or vertex.lag > 0


def _is_end(vertex: Vertex, continued: Collection[tuple[str, str]]) -> bool:
    return vertex.type == "loss" or (vertex.lag == 0 and (vertex.node, vertex.role) in continued)
