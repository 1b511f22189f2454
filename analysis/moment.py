"""One iteration of one step: which of its tensors hold non-finite numbers, and how they hang together."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stepscope.store import Step
from stepscope.store.records import STATISTICS, WHOLE_STEP, Vertex

_NAN, _INF = STATISTICS.index("nan_count"), STATISTICS.index("inf_count")


def non_finite_rows(step: Step) -> NDArray[np.bool_]:
    """``(R,)``: which rows hold NaN or infinite elements."""
    statistics = step.statistics()
    return np.asarray(statistics[:, _NAN] + statistics[:, _INF] > 0)


class Moment:
    """The graph of an iteration with the rows of one quantity (``"value"`` or ``"gradient"``) at its vertices."""

    def __init__(self, step: Step, iteration: int, quantity: str) -> None:
        self.step = step
        self.graph = step.graph(iteration)
        self.sources: list[list[int]] = [[] for _ in self.graph.vertices]
        self.sinks: list[list[int]] = [[] for _ in self.graph.vertices]
        for edge in self.graph.edges:
            self.sources[edge.sink].append(edge.source)
            self.sinks[edge.source].append(edge.sink)
        rows = {
            (tensor.node, tensor.role, tensor.iteration): row
            for row, tensor in enumerate(step.layout.tensors)
            if tensor.quantity.partition(":")[0] == quantity
        }
        self.rows = [rows.get(_key(vertex, iteration)) for vertex in self.graph.vertices]

    @cached_property
    def bad(self) -> list[bool]:
        """For each vertex, whether it holds non-finite numbers."""
        rows = non_finite_rows(self.step)
        return [row is not None and bool(rows[row]) for row in self.rows]

    def has_nan(self, vertex: int) -> bool:
        row = self.rows[vertex]
        return row is not None and bool(self.step.statistics()[row, _NAN] > 0)

    def count(self, vertex: int) -> int:
        """How many elements of a vertex are not finite."""
        row = self.rows[vertex]
        return 0 if row is None else int(self.step.statistics()[row, [_NAN, _INF]].sum())

    def is_mask(self, vertex: int) -> bool:
        """Infinities that end in finite numbers: an attention mask, masked scores, the start of a maximum."""
        waiting, seen = [vertex], {vertex}
        while waiting:
            index = waiting.pop()
            if self.has_nan(index) or self.graph.vertices[index].type == "loss":
                return False
            new = [sink for sink in self.sinks[index] if self.bad[sink] and sink not in seen]
            seen.update(new)
            waiting.extend(new)
        return True

    def order(self) -> list[int]:
        """The vertices, each after all of its sources."""
        done: dict[int, None] = {}
        for start in range(len(self.graph.vertices)):
            stack = [start]
            opened: set[int] = set()
            while stack:
                index = stack[-1]
                missing = [source for source in self.sources[index] if source not in done]
                if index in opened or not missing:
                    done[stack.pop()] = None
                else:
                    opened.add(index)
                    stack.extend(source for source in missing if source not in opened)
        return list(done)


def _key(vertex: Vertex, iteration: int) -> tuple[str, str, int]:
    return vertex.node, vertex.role, WHOLE_STEP if vertex.whole_step else iteration - vertex.lag
