"""What was measured of one tensor over the steps of a trial, all statistics at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepscope.store.records import BATCH_AGGREGATES, SAMPLE_STATISTICS, STATISTICS

Values = NDArray[np.float64]

_IDENTITY = [STATISTICS.index(name) for name in ("mean", "std", "min", "max", "norm")]


@dataclass(frozen=True)
class History:
    """One tensor over n steps.

    Attributes:
        node, role, iteration, quantity: which tensor; ``role`` and ``iteration`` as they were asked for.
        steps: ``(n,)`` the numbers of the steps in which it exists.
        statistics: ``(n, len(STATISTICS))``.
        aggregates: ``(n, len(SAMPLE_STATISTICS), len(BATCH_AGGREGATES))``.
    """

    node: str
    role: str | None
    iteration: int | None
    quantity: str
    steps: NDArray[np.int64]
    statistics: Values
    aggregates: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.steps)

    def of(self, statistic: str) -> Values:
        """``(n,)``: one statistic over all elements."""
        values: Values = self.statistics[:, STATISTICS.index(statistic)]
        return values

    @property
    def identity(self) -> Values:
        """``(n, 5)``: what tells tensors apart: equal rows are of the same numbers, unless by a rare chance."""
        values: Values = self.statistics[:, _IDENTITY]
        return values

    @property
    def is_changed(self) -> NDArray[np.bool_]:
        """``(n - 1,)``: whether it differs from what it was one step before; NaN differs from all."""
        changed: NDArray[np.bool_] = (self.identity[1:] != self.identity[:-1]).any(axis=1)
        return changed

    @property
    def is_constant(self) -> bool:
        """Whether it is the same in all steps, those left out in which it is NaN."""
        values = self.identity
        return bool(np.all((values == values[:1]) | np.isnan(values)))

    def over_batch(self, statistic: str, aggregate: str) -> Values:
        """``(n,)``: an aggregate over the batch of a per-sample statistic."""
        values = self.aggregates[:, SAMPLE_STATISTICS.index(statistic), BATCH_AGGREGATES.index(aggregate)]
        return np.asarray(values, np.float64)

    @property
    def non_finite(self) -> Values:
        """``(n,)``: how many elements are NaN or infinite."""
        values: Values = self.of("nan_count") + self.of("inf_count")
        return values
