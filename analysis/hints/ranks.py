"""Rank statistics: robust against outliers and monotonic scales, of which training is full."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

_EXACT_GROUP = 8
"""Groups of up to this size are tested exactly; the normal approximation is too timid for them."""


def ranks(values: Vector) -> Vector:
    """Ranks from 1; ties get their mean rank.

    >>> ranks(np.array([3.0, 1.0, 3.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    result = np.empty(len(values))
    if len(values) and (ordered[1:] != ordered[:-1]).all():
        result[order] = np.arange(1, len(values) + 1)
        return result
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    means: Vector = (np.cumsum(counts) - (counts - 1) / 2).astype(np.float64)
    return means[inverse.reshape(-1)]


def spearman(a: Vector, b: Vector) -> float:
    """Spearman's rank correlation, ties at their mean rank; NaN where one side is constant.

    >>> spearman(np.array([1.0, 2.0, 5.0]), np.array([2.0, 4.0, 9.0]))
    1.0
    """
    return correlation(ranks(a), ranks(b))


def partial(a: Vector, b: Vector) -> float:
    """The rank correlation of two series, given their common order in time; NaN where nothing is left but the time."""
    return partial_of_ranks(ranks(a), ranks(b))


def partial_of_ranks(a: Vector, b: Vector) -> float:
    """``partial`` of series whose ranks are known."""
    time = np.arange(len(a), dtype=np.float64)
    both, first, second = correlation(a, b), correlation(a, time), correlation(b, time)
    left = (1 - first**2) * (1 - second**2)
    return (both - first * second) / math.sqrt(left) if left > 1e-6 else math.nan


def correlation(x: Vector, y: Vector) -> float:
    """Pearson's correlation; NaN where one side is constant."""
    x, y = x - x.mean(), y - y.mean()
    size = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / size if size else math.nan


def probability_of_correlation(strength: float, count: int) -> float:
    """Of so strong a partial rank correlation by accident, two-sided.

    By Fisher's transformation (1915), whose error is normal; one degree of freedom less than usual, for the time that
    was taken out.
    """
    if count <= 4:
        return 1.0
    if abs(strength) >= 1:
        return 0.0
    return two_sided(math.atanh(strength) * math.sqrt((count - 4) / 1.06))  # Fieller, Hartley and Pearson (1957)


def two_sided(deviations: float) -> float:
    """The probability of so many standard deviations, to either side."""
    return math.erfc(abs(deviations) / math.sqrt(2))


def rank_biserial(ranked: Vector, inside: NDArray[np.bool_]) -> tuple[float, float]:
    """How much larger values are inside of a group than outside, from -1 to 1, and the probability of an accident.

    The effect is the share of pairs in which the one inside is larger, minus the share in which it is smaller (Wendt
    1972); the test is Mann and Whitney's (1947), exact for groups of up to eight without ties.

    >>> rank_biserial(np.array([1.0, 2.0, 3.0, 4.0]), np.array([False, False, True, True]))[0]
    1.0
    """
    n, m = int(inside.sum()), int((~inside).sum())
    if not n or not m:
        return math.nan, 1.0
    wins = float(ranked[inside].sum()) - n * (n + 1) / 2
    effect = 2 * wins / (n * m) - 1
    untied = bool((np.sort(ranked) == np.arange(1, n + m + 1)).all())
    if min(n, m) <= _EXACT_GROUP and untied:
        least = min(wins, n * m - wins)
        return effect, min(1.0, 2 * float(_shares(min(n, m), max(n, m))[: int(least) + 1].sum()))
    spread = math.sqrt(n * m / 12 * _tie_factor(ranked))
    return effect, two_sided((wins - n * m / 2) / spread) if spread else 1.0


def _tie_factor(ranked: Vector) -> float:
    """Ties leave less room for a difference: ``N + 1 - sum(t^3 - t) / (N (N - 1))``."""
    total = len(ranked)
    _, counts = np.unique(ranked, return_counts=True)
    return total + 1 - float((counts.astype(np.float64) ** 3 - counts).sum()) / (total * (total - 1))


@lru_cache(maxsize=64)
def _shares(n: int, m: int) -> Vector:
    """How often each number of wins occurs among all choices of n out of n + m, by counting them.

    ``ways[k][w]``: in how many ways k of the ranks so far are inside, with w wins.
    """
    ways = np.zeros((n + 1, n * m + 1))
    ways[0, 0] = 1.0
    for rank in range(n + m):
        for k in range(min(n, rank + 1), 0, -1):
            wins = rank - (k - 1)  # those outside and below the one that is put inside
            if wins <= m:
                ways[k, wins:] += ways[k - 1, : n * m + 1 - wins]
    shares: Vector = ways[n] / ways[n].sum()
    return shares
