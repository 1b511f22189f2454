"""The rule ``unreached-vertices``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store import Step

_LEAST = 3
_FEWEST = 8
"""Vertices of a batch below which nothing is said."""


@dataclass(frozen=True)
class UnreachedVertices(Rule):
    """Several graphs make a batch, and the edges of each count from 0: all of them join vertices of the first one.

    Symptom: a graph network is no better than one without edges, though it learns from a single graph.

    How it is measured: an input of whole numbers ``(2, edges)`` never has a number above ``reached`` times the rows of
    the table of vertices that comes in beside it, in no recorded training step.

    Causes: edge lists that are put together by hand, without adding to each the number of vertices before it.

    Remedy: ``edges + first``, with the number of the graph's first vertex in the batch; or PyTorch Geometric's
    ``Batch.from_data_list``, which does so.

    Source: PyTorch Geometric's documentation of mini-batches (one adjacency matrix with blocks along its diagonal).

    Attributes:
        reached: the part of the vertices beyond which an edge should begin or end, at least once.
    """

    name = "unreached-vertices"
    causes = "The edges of each graph count from 0: the number of the vertices of the graphs before it was not added."
    remedy = "Add to each graph's edges how many vertices come before it in the batch."
    reached: float = 0.5

    def check(self, view: View) -> Iterable[Finding]:
        inputs = view.flow.of_type("input")
        steps = [step for step in view.training if step.number not in view.broken]
        if len(steps) < _LEAST or len(inputs) < 2:
            return
        for edges in (place for place in inputs if _are_edges(view, place, steps[-1])):
            tables = [other for other in inputs if other != edges and not _are_edges(view, other, steps[-1])]
            parts = [part for step in steps if (part := _reached(view, edges, tables, step)) is not None]
            if len(parts) >= _LEAST and max(parts) <= self.reached:
                table = max(tables, key=lambda place: _rows(view, place, steps[-1]))
                rows = _rows(view, table, steps[-1])
                last = round(max(parts) * rows) - 1
                summary = (
                    f"No edge of {edges.node} begins or ends beyond vertex {last}, and {table.node} has {rows}: the "
                    f"edges of each graph of the batch seem to count from 0, so that all of them are in the first one "
                    f"(no offset was added), and the messages of all graphs go to other samples."
                )
                shown = [evidence(view.history(edges.node, role=edges.role), "max", "the last vertex with an edge")]
                yield self.finding(
                    view, edges.node, "warning", summary, shown, step=view.began, nodes=[table.node], confidence=0.8
                )


def _are_edges(view: View, place: Place, step: Step) -> bool:
    shape = view.shape(place, step)
    if shape is None or len(shape) != 2 or shape[0] != 2 or shape[1] < _LEAST:
        return False
    return step.find(place.node, role=place.role).info.dtype.startswith(("int", "uint"))


def _rows(view: View, place: Place, step: Step) -> int:
    return (view.shape(place, step) or (0,))[0]


def _reached(view: View, edges: Place, tables: list[Place], step: Step) -> float | None:
    """The part of the vertices up to the last one with an edge; None in a step without enough of them."""
    rows = max((_rows(view, place, step) for place in tables), default=0)
    history = view.history(edges.node, role=edges.role)
    here = history.of("abs_max")[history.steps == step.number]
    return (float(here[0]) + 1) / rows if rows >= _FEWEST and len(here) else None
