"""What goes, within a batch, with the loss of a sample or with its category.

Only samples of one step are compared with each other, so that neither time nor the difficulty of a batch counts; the
steps are then added up.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis.hints.curves import FEWEST, loss_node
from stepscope.analysis.hints.hint import Candidate, Hint, Relation
from stepscope.analysis.hints.ranks import Vector, two_sided
from stepscope.analysis.hints.sample_loss import SampleLoss
from stepscope.store import Step, Trial
from stepscope.store.errors import DamagedError
from stepscope.store.records import SAMPLE_STATISTICS

_MOST_STEPS = 150
_MOST_CATEGORIES = 12
_STATISTICS = ("mean", "std", "abs_max")
_Key = tuple[Relation, str, str, str]  # relation, group, node, statistic


@dataclass
class _Sums:
    """Over the steps: the covariance of the ranks, what it would vary by accident, and both variances."""

    covariance: float = 0.0
    variance: float = 0.0
    mine: float = 0.0
    theirs: float = 0.0
    count: int = 0


def by_sample(trial: Trial) -> Iterator[Candidate]:
    """Relations with the loss and the categories of single samples, in steps of any kind."""
    sums: dict[_Key, _Sums] = defaultdict(_Sums)
    loss, skipped = SampleLoss(trial), loss_node(trial)
    for step in _steps(trial):
        with suppress(DamagedError):  # the other steps are still there
            groups: dict[tuple[Relation, str], Vector] = dict(_categories(step))
            losses = loss.of(step)
            if losses is not None:
                groups["sample", ""] = losses
            for (relation, group), values in groups.items():
                _add(sums, step, relation, group, values, skipped)
    for (relation, group, node, statistic), total in sums.items():
        if total.count >= FEWEST and total.variance > 0:
            strength = total.covariance / math.sqrt(total.mine * total.theirs)
            hint = Hint(relation, node, "value", statistic, strength, total.count, group)
            yield Candidate(hint, two_sided(total.covariance / math.sqrt(total.variance)))


def _steps(trial: Trial) -> Iterator[Step]:
    numbers = trial.steps.tolist()
    chosen = np.unique(np.linspace(0, len(numbers) - 1, min(_MOST_STEPS, len(numbers))).round().astype(int))
    for place in chosen.tolist():
        with suppress(DamagedError):
            yield trial.step(numbers[place])


def _categories(step: Step) -> Iterator[tuple[tuple[Relation, str], Vector]]:
    names = [str(name) for name in step.categories]
    for name in sorted(set(names))[:_MOST_CATEGORIES]:
        yield ("category", name), np.array([float(own == name) for own in names])


def _add(sums: dict[_Key, _Sums], step: Step, relation: Relation, group: str, values: Vector, skipped: str) -> None:
    """Add one step: for each tensor with a batch, how its samples' ranks vary together with those of ``values``."""
    chosen = _rows(step, skipped)
    if not chosen or np.ptp(values) == 0:
        return
    columns = [SAMPLE_STATISTICS.index(name) for name in _STATISTICS]
    theirs = _centered_ranks(values)
    measured = step.per_sample()[np.array([row for row, _ in chosen])][:, :, columns].astype(np.float64)
    mine = _centered_ranks(np.moveaxis(measured, 1, 2))  # (rows, statistics, samples)
    covariance, own = mine @ theirs, (mine * mine).sum(axis=2)
    other = float(theirs @ theirs)
    for i, (_, node) in enumerate(chosen):
        for j, statistic in enumerate(_STATISTICS):
            if not own[i, j] > 0:  # constant, or not measured
                continue
            total = sums[relation, group, node, statistic]
            total.covariance += float(covariance[i, j])
            total.variance += float(own[i, j]) * other / (len(values) - 1)  # over all orders of the samples
            total.mine += float(own[i, j])
            total.theirs += other
            total.count += len(values)


def _rows(step: Step, skipped: str) -> list[tuple[int, str]]:
    """One row of each node, the last; all values that have a batch. A gradient grows with the loss by its nature."""
    last = {
        info.node: row
        for row, info in enumerate(step.layout.tensors)
        if info.batch_dim is not None and info.node != skipped and info.quantity == "value"
    }
    return [(row, node) for node, row in last.items()]


def _centered_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks along the last axis, ties at their mean rank, minus their mean; NaN where anything is NaN."""
    one, other = values[..., :, None], values[..., None, :]
    below = (other < one).sum(axis=-1) + 0.5 * (other == one).sum(axis=-1)
    centered: NDArray[np.float64] = below - values.shape[-1] / 2
    centered[np.isnan(values).any(axis=-1)] = np.nan
    return centered
