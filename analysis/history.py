"""What was measured of one tensor over the steps of a trial, all statistics at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepscope.store.records import BATCH_AGGREGATES, SAMPLE_STATISTICS, STATISTICS

Values = NDArray[np.float64]


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

    def over_batch(self, statistic: str, aggregate: str) -> Values:
        """``(n,)``: an aggregate over the batch of a per-sample statistic."""
        values = self.aggregates[:, SAMPLE_STATISTICS.index(statistic), BATCH_AGGREGATES.index(aggregate)]
        return np.asarray(values, np.float64)

    @property
    def non_finite(self) -> Values:
        """``(n,)``: how many elements are NaN or infinite."""
        values: Values = self.of("nan_count") + self.of("inf_count")
        return values
