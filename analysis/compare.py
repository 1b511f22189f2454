"""Two trials side by side: which step of the other is the counterpart of this one, and how their numbers differ."""

from __future__ import annotations

import math
from dataclasses import dataclass

from stepscope.store import Row, Step, Trial
from stepscope.store.records import BATCH_AGGREGATES, SAMPLE_STATISTICS, STATISTICS


@dataclass(frozen=True)
class Difference:
    """One number in two trials. ``relative`` is ``(this - other) / |other|``; infinite or NaN where that is."""

    this: float
    other: float

    @property
    def absolute(self) -> float:
        return self.this - self.other

    @property
    def relative(self) -> float:
        if self.other == 0:
            return 0.0 if self.this == 0 else math.copysign(math.inf, self.this)
        return (self.this - self.other) / abs(self.other)


def counterpart(step: Step, other: Trial) -> Step | None:
    """The step of another trial to compare with: the same number, else the nearest of the same kind, else the nearest.

    None if the other trial has no steps.
    """
    if step.number in other.steps:
        return other.step(step.number)
    nearest = other.nearest_step(step.number, kind=step.kind if step.kind in other.kinds else None)
    return None if nearest is None else other.step(nearest)


def row_of(step: Step, row: Row) -> Row | None:
    """The row of another step that holds the same tensor as ``row``; None if there is none."""
    info = row.info
    index = step.layout.row(info.node, info.quantity, info.role, info.iteration)
    return None if index is None else step.rows()[index]


def value_of(step: Step, row: int, statistic: str, sample: str = "all") -> float:
    """One number of a row: over all elements (``"all"``), over the batch (``"batch_mean"``) or of a ``"sample:0"``."""
    if sample == "all":
        return float(step.statistics()[row, STATISTICS.index(statistic)])
    return sample_values(step, row, sample).get(statistic, math.nan)


def sample_values(step: Step, row: int, sample: str) -> dict[str, float]:
    """The per-sample statistics of a row: aggregated over the batch, or of one kept sample."""
    if sample.startswith("sample:"):
        values = step.per_sample()[row, int(sample.partition(":")[2])]
    else:
        values = step.aggregates()[row, :, BATCH_AGGREGATES.index(sample)]
    return dict(zip(SAMPLE_STATISTICS, map(float, values), strict=True))
