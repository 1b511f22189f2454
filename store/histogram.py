"""Counts of a tensor's elements by sign and magnitude."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepscope.store.records import HISTOGRAM_HALF_BINS, HISTOGRAM_MIN_EXPONENT


@dataclass(frozen=True)
class Histogram:
    """Counts of elements by sign and magnitude: see ``HISTOGRAM_BINS`` for their order.

    ``counts`` is ``(HISTOGRAM_BINS,)``.
    """

    counts: NDArray[np.int64]

    @property
    def negative(self) -> NDArray[np.int64]:
        """Counts of negative elements, the smallest magnitude first."""
        return self.counts[HISTOGRAM_HALF_BINS:0:-1]

    @property
    def positive(self) -> NDArray[np.int64]:
        """Counts of positive elements, the smallest magnitude first."""
        return self.counts[HISTOGRAM_HALF_BINS + 2 : -2]

    @property
    def zeros(self) -> int:
        return int(self.counts[HISTOGRAM_HALF_BINS + 1])

    @property
    def infinities(self) -> tuple[int, int]:
        """How many elements are minus and plus infinity."""
        return int(self.counts[0]), int(self.counts[-2])

    @property
    def nans(self) -> int:
        return int(self.counts[-1])

    @staticmethod
    def edges() -> NDArray[np.float64]:
        """Lower edges of the magnitudes of the ``HISTOGRAM_HALF_BINS`` bins, and the upper edge of the last."""
        octaves = np.arange(HISTOGRAM_HALF_BINS // 2)
        low = np.exp2(octaves + HISTOGRAM_MIN_EXPONENT)
        edges = np.column_stack([low, 1.5 * low]).reshape(-1)
        return np.append(edges, 2 * low[-1])
