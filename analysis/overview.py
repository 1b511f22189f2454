"""What strikes the eye at one step: non-finite tensors, loose ends, weights without gradient, extreme gradients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stepscope.store import Row, Step, Trial
from stepscope.store.records import STATISTICS, WHOLE_STEP

_MOST = 5


@dataclass(frozen=True)
class Entry:
    """One tensor that is worth a look, and the number that says why (NaN where there is none)."""

    node: str
    role: str
    iteration: int
    quantity: str
    value: float


@dataclass(frozen=True)
class Overview:
    """The answer of ``look_at``; each list holds the first few, each ``total`` says how many there are."""

    non_finite: tuple[Entry, ...]
    non_finite_total: int
    unconnected: tuple[Entry, ...]
    unconnected_total: int
    without_gradient: tuple[Entry, ...]
    without_gradient_total: int
    largest_gradients: tuple[Entry, ...]
    smallest_gradients: tuple[Entry, ...]


def look_at(trial: Trial, step: Step, iteration: int) -> Overview:
    """Gather what is worth a look in one iteration of a step."""
    non_finite = _non_finite(trial, step)
    unconnected = _unconnected(step, iteration)
    without = _without_gradient(trial, step)
    largest, smallest = _gradient_extremes(step)
    return Overview(
        tuple(non_finite[:_MOST]),
        len(non_finite),
        tuple(unconnected[:_MOST]),
        len(unconnected),
        tuple(without[:_MOST]),
        len(without),
        largest,
        smallest,
    )


def non_finite_rows(step: Step) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """``(R,)``: whether a row holds NaN or infinite elements."""
    statistics = step.statistics()
    counts = statistics[:, STATISTICS.index("nan_count")] + statistics[:, STATISTICS.index("inf_count")]
    return np.asarray(counts > 0)


def _entry(row: Row, value: float = float("nan")) -> Entry:
    return Entry(row.info.node, row.info.role, row.info.iteration, row.info.quantity, value)


def _non_finite(trial: Trial, step: Step) -> list[Entry]:
    """In the order in which data flows, values first: the first is the origin."""
    rows = step.rows()
    counts = step.statistics()[:, [STATISTICS.index("nan_count"), STATISTICS.index("inf_count")]].sum(axis=1)
    place = {node.name: position for position, node in enumerate(trial.nodes)}
    found = [rows[index] for index in np.flatnonzero(counts > 0)]
    found.sort(key=lambda row: (row.info.quantity != "value", *_when(row), place.get(row.info.node, len(place))))
    return [_entry(row, float(counts[row.index])) for row in found]


def _when(row: Row) -> tuple[int, int]:
    """Parameters, inputs and targets are there first; then the iterations; then what is made after them."""
    if row.info.iteration != WHOLE_STEP:
        return (1, row.info.iteration)
    return (2, 0) if row.info.type in ("calculated", "loss") else (0, 0)


def _unconnected(step: Step, iteration: int) -> list[Entry]:
    """Tensors that nothing depends on, apart from losses, and from buffers, which often just count."""
    graph = step.graph(iteration)
    sources = {edge.source for edge in graph.edges}
    handed_on = continued(step)
    return [
        Entry(vertex.node, vertex.role, iteration, "value", float("nan"))
        for index, vertex in enumerate(graph.vertices)
        if index not in sources
        and vertex.type not in ("loss", "buffer")
        and (vertex.node, vertex.role) not in handed_on
    ]


def continued(step: Step) -> frozenset[tuple[str, str]]:
    """The ``(node, role)`` that one iteration of a step hands on to the next: they are no loose ends.

    Not in the last iteration either, where there is nobody left to take them.
    """
    graphs = {step.graph_digest(iteration): iteration for iteration in step.iterations}
    carried = (vertex for iteration in graphs.values() for vertex in step.graph(iteration).vertices if vertex.lag)
    return frozenset((vertex.node, vertex.role) for vertex in carried)


def _without_gradient(trial: Trial, step: Step) -> list[Entry]:
    """Trainable parameters that got no gradient, in a step in which others did."""
    rows = step.rows()
    have = {row.info.node for row in rows if row.info.quantity.startswith("gradient")}
    parameters = [row for row in rows if row.info.type == "parameter" and row.info.quantity == "value"]
    if not any(row.info.node in have for row in parameters):
        return []
    frozen = {name for module in trial.network for p in module.parameters if not p.trainable for name in p.names}
    return [_entry(row) for row in parameters if row.info.node not in have and row.info.node not in frozen]


def _gradient_extremes(step: Step) -> tuple[tuple[Entry, ...], tuple[Entry, ...]]:
    """Parameters with the largest and the smallest root-mean-square gradient: sizes do not blur the comparison."""
    norms = step.statistics()[:, STATISTICS.index("norm")]
    found = []
    for row in step.rows(quantity="gradient"):
        elements = int(np.prod(row.shape, dtype=np.int64)) if row.shape else 1
        if row.info.type == "parameter" and elements and np.isfinite(norms[row.index]):
            found.append(_entry(row, float(norms[row.index]) / elements**0.5))
    found.sort(key=lambda entry: -entry.value)
    return tuple(found[:3]), tuple(reversed(found[-3:])) if len(found) > 3 else ()
