"""A layout: what the rows of a step are, and how to find them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from stepscope.store.records import TensorInfo


class Layout:
    """The rows of all steps that hold the same tensors, with an index by node and quantity."""

    def __init__(self, name: bytes, tensors: Sequence[TensorInfo]) -> None:
        self.name = name
        self.tensors = tuple(tensors)
        self._nodes = {tensor.node for tensor in self.tensors}
        self._rows: dict[tuple[str, str], list[int]] = defaultdict(list)
        for row, tensor in enumerate(self.tensors):
            self._rows[tensor.node, tensor.quantity].append(row)

    def has(self, node: str) -> bool:
        """Whether a node was recorded at all."""
        return node in self._nodes

    def row(self, node: str, quantity: str, role: str | None, iteration: int | None) -> int | None:
        """The row that is meant, or None: of the last role and the last iteration unless they are given."""
        rows = [
            row
            for row in self._rows.get((node, quantity), ())
            if (role is None or self.tensors[row].role == role)
            and (iteration is None or self.tensors[row].iteration == iteration)
        ]
        if not rows:
            return None
        return max(rows, key=lambda row: (self.tensors[row].iteration, row))
