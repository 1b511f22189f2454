"""Where two trials part: the first step and, in the order of the data, the first tensor that differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepscope.store import Row, Step, Trial
from stepscope.store.records import STATISTICS, WHOLE_STEP

COMPARED = ("mean", "std", "abs_max", "norm", "zero_fraction", "nan_count", "inf_count")


@dataclass(frozen=True)
class Divergence:
    """One tensor of two trials at the same step: a statistic in which they differ most.

    ``more`` is how many other tensors of the step differ, too.
    """

    step: int
    node: str
    role: str
    iteration: int
    quantity: str
    statistic: str
    this: float
    other: float
    more: int = 0


def first_divergence(
    trial: Trial, other: Trial, *, tolerance: float = 1e-5, limit: int | None = None
) -> Divergence | None:
    """The first difference, step by step and then in the order of the data; None if all common steps agree.

    Args:
        trial, other: two recordings.
        tolerance: relative differences up to it count as none: float32 has about seven digits.
        limit: of how many common steps, from the first one on; all unless given.
    """
    for number in np.intersect1d(trial.steps, other.steps)[:limit].tolist():
        found = differences_at(trial, trial.step(number), other.step(number), tolerance=tolerance)
        if found:
            return found[0]
    return None


def differences_at(
    trial: Trial, step: Step, there: Step, *, tolerance: float = 1e-5, statistics: Sequence[str] = COMPARED
) -> list[Divergence]:
    """All tensors that differ between two steps, in the order of the data; those of only one step are left out."""
    pairs = _pairs(step, there)
    if not pairs:
        return []
    columns = [STATISTICS.index(name) for name in statistics]
    mine = step.statistics()[np.array([row.index for row, _ in pairs])][:, columns]
    theirs = there.statistics()[np.array([index for _, index in pairs])][:, columns]
    apart = _relative(mine, theirs)
    different = np.flatnonzero((apart > tolerance).any(axis=1)).tolist()
    place = {node.name: position for position, node in enumerate(trial.nodes)}
    different.sort(key=lambda i: _order(pairs[i][0], place))
    found = []
    for i in different:
        info, which = pairs[i][0].info, int(apart[i].argmax())
        values = float(mine[i, which]), float(theirs[i, which])
        found.append(
            Divergence(step.number, info.node, info.role, info.iteration, info.quantity, statistics[which], *values,
                       more=len(different) - 1)
        )  # fmt: skip
    return found


def _pairs(step: Step, there: Step) -> Sequence[tuple[Row, int]]:
    rows = step.rows()
    if step.layout.name == there.layout.name:
        return [(row, row.index) for row in rows]
    places = {_identity(row): row.index for row in there.rows()}
    return [(row, places[_identity(row)]) for row in rows if _identity(row) in places]


def _identity(row: Row) -> tuple[str, str, int, str]:
    return row.info.node, row.info.role, row.info.iteration, row.info.quantity


def _relative(mine: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """``|a - b| / max(|a|, |b|)``; a number against NaN is infinitely far apart, NaN against NaN not at all."""
    size = np.maximum(np.abs(mine), np.abs(theirs))
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = np.where(size > 0, np.abs(mine - theirs) / size, 0.0)
    one_is_missing = np.isnan(mine) != np.isnan(theirs)
    return np.where(one_is_missing, np.inf, np.nan_to_num(apart, nan=0.0, posinf=np.inf))


def _order(row: Row, place: dict[str, int]) -> tuple[int, int, int, int]:
    """Values before gradients before updates; inputs and weights, the iterations, what is made after them."""
    info = row.info
    kind = 0 if info.quantity == "value" else 1 if info.quantity.startswith("gradient") else 2
    late = info.iteration == WHOLE_STEP and info.type in ("calculated", "loss")
    return kind, 1 if late else 0, info.iteration, place.get(info.node, len(place))
