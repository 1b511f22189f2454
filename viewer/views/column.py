"""One number for each row of a step: the chosen statistic, over what was chosen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stepscope.store import Step
from stepscope.store.records import BATCH_AGGREGATES, SAMPLE_STATISTICS, STATISTICS
from stepscope.viewer.selection import ALL


def column(step: Step, statistic: str, sample: str = ALL) -> NDArray[np.float64]:
    """``(R,)``: a statistic of all rows; NaN where there is none.

    Args:
        step: where to look.
        statistic: one of ``STATISTICS``.
        sample: ``"all"`` elements, a batch aggregate of the samples' statistic, or ``"sample:0"``.
    """
    if sample == ALL:
        return step.statistics()[:, STATISTICS.index(statistic)]
    if statistic not in SAMPLE_STATISTICS:
        return np.full(len(step.statistics()), np.nan)
    which = SAMPLE_STATISTICS.index(statistic)
    if sample in BATCH_AGGREGATES:
        return step.aggregates()[:, which, BATCH_AGGREGATES.index(sample)].astype(np.float64)
    position = int(sample.partition(":")[2])
    kept = step.per_sample()
    if position >= kept.shape[1]:
        return np.full(len(kept), np.nan)
    return kept[:, position, which].astype(np.float64)


def shown_statistic(statistic: str, sample: str) -> str:
    """The chosen statistic, or the standard deviation where there is none of it for single samples."""
    return statistic if sample == ALL or statistic in SAMPLE_STATISTICS else "std"
