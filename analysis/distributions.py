"""Whether kept numbers are distributed as before a step, but in another order: of columns, or of words."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis.flow import Place
from stepscope.analysis.history import Values
from stepscope.analysis.neurons import neurons_of
from stepscope.store import Step

_MOST_FEATURES, _LEAST, _LEAST_WORDS, _MOST_WORDS = 64, 100, 1000, 1000
_CHANCE, _SAME = 1e-6, 1e-3
"""The probability by which columns that differ, and columns that do not, look so by chance."""


def kept(steps: list[Step], place: Place) -> Values:
    """``(n, features)``: the kept samples of some steps; empty where they differ in shape."""
    found = [neurons.samples for step in steps if (neurons := neurons_of(step, place)) is not None]
    if not found or len({samples.shape[1:] for samples in found}) > 1:
        return np.empty((0, 0))
    values: Values = np.concatenate(found).astype(np.float64)
    return values[np.isfinite(values).all(axis=1)]


def reordered_columns(before: Values, after: Values) -> list[int]:
    """The columns whose numbers are distributed as those of others were, and not as their own; empty if not all fit."""
    counts = len(before), len(after)
    if min(counts) < _LEAST or before.shape[1] != after.shape[1] or not 1 < before.shape[1] <= _MOST_FEATURES:
        return []
    old, new = (np.sort(values, axis=0) for values in (before, after))
    apart = np.array([[_apart(one, two) for two in old.T] for one in new.T])
    own, nearest = np.diag(apart), apart.min(axis=1)
    moved = np.flatnonzero(own > _limit(_CHANCE / len(own), *counts))
    fits = bool(np.all(nearest < _limit(_SAME, *counts))) and bool(np.all(apart.min(axis=0) < _limit(_SAME, *counts)))
    return moved.tolist() if len(moved) > 1 and fits else []


def reordered_words(before: Values, after: Values) -> float:
    """The share of the words that are others than before; 0 if the commonest is not as common as the commonest was."""
    one, two = before.ravel(), after.ravel()
    if (
        min(len(one), len(two)) < _LEAST_WORDS
        or max(one.max(), two.max()) >= _MOST_WORDS
        or min(one.min(), two.min()) < 0
    ):
        return 0.0
    shares = [_shares(words) for words in (one, two)]
    other = float(np.abs(shares[0] - shares[1]).sum()) / 2
    ranks = float(np.abs(np.sort(shares[0]) - np.sort(shares[1])).sum()) / 2
    return other if ranks < other / 3 else 0.0


def _shares(words: Values) -> Values:
    counts: NDArray[np.int64] = np.bincount(words.astype(np.int64), minlength=_MOST_WORDS)
    return np.asarray(counts / len(words), np.float64)


def _limit(chance: float, one: int, two: int) -> float:
    """What two samples of one distribution may differ by (Kolmogorov and Smirnov)."""
    return math.sqrt((one + two) / (one * two)) * math.sqrt(-math.log(chance / 2) / 2)


def _apart(one: Values, two: Values) -> float:
    """The largest distance of the two shares of (sorted) numbers below any number."""
    every = np.concatenate([one, two])
    below = [np.searchsorted(values, every, side="right") / len(values) for values in (one, two)]
    return float(np.abs(below[0] - below[1]).max())
