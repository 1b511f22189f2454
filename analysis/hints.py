"""Which numbers move together with the loss, or just before it: hints, not findings."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stepscope.store import Trial
from stepscope.store.errors import StoreError

Kind = Literal["with", "before"]
Vector = NDArray[np.float64]

_STATISTICS = {"value": ("std", "abs_max", "zero_fraction"), "gradient": ("norm",), "update": ("norm",)}
_FEWEST = 12
"""Fewer steps than this say nothing."""
_MOST_NODES = 300


@dataclass(frozen=True)
class Hint:
    """One relation.

    Attributes:
        kind: ``"with"``: changes from step to step together with the loss; ``"before"``: one recorded step before it.
        node, quantity, statistic: of what.
        strength: Spearman's rank correlation of the changes, given the time.
        steps: how many changes it rests on.
    """

    kind: Kind
    node: str
    quantity: str
    statistic: str
    strength: float
    steps: int


@dataclass(frozen=True)
class Hints:
    """The strongest relations that are no accident, and among how many they were looked for."""

    hints: tuple[Hint, ...] = ()
    comparisons: int = 0


def hints(trial: Trial, *, most: int = 12, level: float = 0.01) -> Hints:
    """Look for relations between the statistics of a trial and its loss.

    Over a training run nearly everything has a trend, and trends correlate with each other without any meaning. So
    changes from one recorded step to the next are compared, not levels; and as these calm down together, too, what
    they have in common with the time is taken out (partial rank correlation).

    >>> for hint in hints(open_trial("runs/demo/bugged")).hints:                # doctest: +SKIP
    ...     print(hint.kind, hint.node, hint.statistic, hint.strength)

    Args:
        trial: a recording.
        most: how many are returned at most.
        level: the probability of an accident that is accepted, over all comparisons together (Bonferroni).
    """
    loss = _loss(trial)
    found: list[tuple[float, Hint]] = []
    comparisons = 0
    for node, quantity, statistic in _candidates(trial, loss):
        for probability, hint in _relations(trial, loss, node, quantity, statistic):
            comparisons += 1
            found.append((probability, hint))
    kept = [hint for probability, hint in found if probability * comparisons < level]
    kept.sort(key=lambda hint: -abs(hint.strength))
    return Hints(tuple(kept[:most]), comparisons)


def _loss(trial: Trial) -> str:
    losses = [node.name for node in trial.nodes if node.type == "loss"]
    return "loss" if "loss" in losses else losses[-1] if losses else ""


def _candidates(trial: Trial, loss: str) -> Iterator[tuple[str, str, str]]:
    for node in [node for node in trial.nodes if node.name != loss][:_MOST_NODES]:
        for quantity in node.quantities:
            for statistic in _STATISTICS.get(quantity, ()):
                yield node.name, quantity, statistic


def _relations(trial: Trial, loss: str, node: str, quantity: str, statistic: str) -> Iterator[tuple[float, Hint]]:
    pair = _aligned(trial, loss, node, quantity, statistic)
    if pair is None:
        return
    mine, theirs = np.diff(pair[0]), np.diff(pair[1])
    sides: tuple[tuple[Kind, Vector, Vector], ...] = (("with", mine, theirs), ("before", mine[:-1], theirs[1:]))
    for which, a, b in sides:
        strength = partial(a, b)
        if not math.isnan(strength):
            hint = Hint(which, node, quantity, statistic, strength, len(a))
            yield _probability(strength, len(a)), hint


def _main_kind(trial: Trial) -> str:
    """The kind with the most steps: mixing kinds would compare apples with pears."""
    kinds = trial.step_kinds
    return max(trial.kinds, key=kinds.count)


def _aligned(trial: Trial, loss: str, node: str, quantity: str, statistic: str) -> tuple[Vector, Vector] | None:
    if not loss or not trial.kinds:
        return None
    kind = _main_kind(trial)
    try:
        mine = trial.series(node, statistic=statistic, quantity=quantity, kind=kind)
        theirs = trial.series(loss, statistic="mean", kind=kind)
    except StoreError:
        return None
    _, at, there = np.intersect1d(mine.steps, theirs.steps, return_indices=True)
    a, b = mine.values[at], theirs.values[there]
    good = np.isfinite(a) & np.isfinite(b)
    return (a[good], b[good]) if good.sum() >= _FEWEST + 2 else None


def spearman(a: Vector, b: Vector) -> float:
    """Spearman's rank correlation, ties at their mean rank; NaN where one side is constant.

    >>> spearman(np.array([1.0, 2.0, 5.0]), np.array([2.0, 4.0, 9.0]))
    1.0
    """
    x, y = _ranks(a), _ranks(b)
    x, y = x - x.mean(), y - y.mean()
    size = math.sqrt(float((x * x).sum()) * float((y * y).sum()))
    return float((x * y).sum()) / size if size else math.nan


def partial(a: Vector, b: Vector) -> float:
    """The rank correlation of two series, given their common order in time; NaN where nothing is left but the time."""
    time = np.arange(len(a), dtype=np.float64)
    both, first, second = spearman(a, b), spearman(a, time), spearman(b, time)
    left = (1 - first**2) * (1 - second**2)
    return (both - first * second) / math.sqrt(left) if left > 1e-6 else math.nan


def _ranks(values: Vector) -> Vector:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    means: Vector = (ends - (counts - 1) / 2).astype(np.float64)
    return means[inverse.reshape(-1)]


def _probability(strength: float, count: int) -> float:
    """Of so strong a correlation by accident, two-sided, by Fisher's transformation (1915), whose error is normal.

    One degree of freedom less than usual, for the time that was taken out.
    """
    if count <= 4:
        return 1.0
    if abs(strength) >= 1:
        return 0.0
    deviations = abs(math.atanh(strength)) * math.sqrt((count - 4) / 1.06)  # 1.06: Fieller, Hartley and Pearson (1957)
    return math.erfc(deviations / math.sqrt(2))
