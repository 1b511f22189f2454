"""One tensor of one step, as a reader sees it; histogram and neurons are read when they are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stepscope.store.histogram import Histogram
from stepscope.store.records import BATCH_AGGREGATES, SAMPLE_STATISTICS, STATISTICS, Neurons, TensorInfo

if TYPE_CHECKING:
    from stepscope.store.step import Step


@dataclass(frozen=True)
class Row:
    """One measured tensor of a step, without its numbers; ``index`` is its row in the step's arrays."""

    index: int
    info: TensorInfo
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Tensor:
    """One tensor of one step: what it is, its statistics, and, read on demand, its histogram and neurons."""

    def __init__(self, step: Step, row: Row) -> None:
        self.step = step
        self.row = row
        self.info = row.info
        self.shape = row.shape
        self.strides = row.strides

    @cached_property
    def statistics(self) -> dict[str, float]:
        """The statistics over all elements, by name."""
        return dict(zip(STATISTICS, self.step.statistics()[self.row.index].tolist(), strict=True))

    @cached_property
    def aggregates(self) -> dict[str, dict[str, float]]:
        """Over the batch, of each per-sample statistic: ``aggregates["std"]["batch_mean"]``; empty without a batch."""
        if self.info.batch_dim is None:
            return {}
        values = self.step.aggregates()[self.row.index]
        return {
            statistic: dict(zip(BATCH_AGGREGATES, map(float, values[i]), strict=True))
            for i, statistic in enumerate(SAMPLE_STATISTICS)
        }

    @property
    def per_sample(self) -> NDArray[np.float32]:
        """``(S, len(SAMPLE_STATISTICS))`` of the kept samples; NaN without a batch."""
        values: NDArray[np.float32] = self.step.per_sample()[self.row.index]
        return values

    @cached_property
    def histogram(self) -> Histogram:
        """Counts of all elements by sign and magnitude."""
        return Histogram(self.step.detail.histogram(self.row.index))

    @property
    def left_out(self) -> str:
        """Why neurons are missing that were there, or could have been, in words; empty if that is not so."""
        return self.step.detail.left_out_of(self.row.index)

    @cached_property
    def neurons(self) -> Neurons | None:
        """The kept neurons, or None."""
        return self.step.detail.neurons(self.row.index)
