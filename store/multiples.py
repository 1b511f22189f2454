"""Finds which numbers of a row are zero, or multiples of another row's: behind a ReLU, a dropout, a scaling."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stepscope.store.codings import FIRST_SCALE, LITERAL, MINUS_ZERO, MOST_SCALES, ZERO, Choices, Words

_REPEATS = 8
"""A ratio counts if this many more of the sampled numbers have it too."""
_TRIED = 2
_WORTHWHILE = 0.1

_SIGN = np.uint32(1 << 31)
_EXPONENT = np.uint32(0x7F800000)
_Floats = NDArray[np.float32]


class Scales:
    """The scales of a step, in the order in which they were found."""

    def __init__(self) -> None:
        self.values: list[np.float32] = []
        self._choices: dict[bytes, int] = {}

    def choice(self, scale: np.float32) -> int:
        """The choice that stands for a scale; ``LITERAL`` if there are too many, or if it is NaN."""
        key = scale.tobytes()
        if key not in self._choices:
            if np.isnan(scale) or len(self.values) >= MOST_SCALES:
                return LITERAL
            self._choices[key] = FIRST_SCALE + len(self.values)
            self.values.append(scale)
        return self._choices[key]


def promising(few: Words, few_near: Words) -> tuple[list[int], _Floats]:
    """Of some numbers of rows ``(k, n)`` and of their neighbours: the rows that may be worth it, and their ratios.

    A row may be its own neighbour; then it may still be partly zeros.
    """
    ratios = _common_ratios(few.view(np.float32), few_near.view(np.float32))
    ratios[(few == few_near).all(axis=1)] = np.nan
    is_zero = (few & ~_SIGN == 0).mean(axis=1)
    rows = np.flatnonzero((is_zero > _WORTHWHILE) | ~np.isnan(ratios[:, 0]))
    return rows.tolist(), ratios[rows]


def choices_of(own: Words, near: Words, ratios: _Floats, scales: Scales) -> Choices:
    """For numbers ``(m, n)``, what they are made of: zeros, and where a product is bit by bit the number, its scale.

    Subnormals and NaN are left out: processors treat them differently.
    """
    choices = np.zeros(own.shape, np.uint8)
    exponents = own & _EXPONENT
    is_normal = (exponents != 0) & (exponents != _EXPONENT)
    for tried in range(ratios.shape[1]):
        numbers = np.array([scales.choice(ratio) for ratio in ratios[:, tried]], np.uint8)
        with np.errstate(all="ignore"):
            products = near.view(np.float32) * ratios[:, tried : tried + 1]
        hit = (products.view(np.uint32) == own) & is_normal
        np.copyto(choices, numbers[:, None], where=hit)
    choices[own == 0] = ZERO
    choices[own == _SIGN] = MINUS_ZERO
    return choices


def _common_ratios(own: _Floats, near: _Floats) -> _Floats:
    """``(k, 2)``: by what many numbers of a row are multiples of those of its neighbour; NaN where there is none."""
    found = np.full((len(own), _TRIED), np.nan, np.float32)
    with np.errstate(all="ignore"):
        ratios = (own / near.astype(np.float64)).astype(np.float32)
        ratios[(own == 0) | ~np.isfinite(ratios)] = np.nan
        for tried in range(_TRIED):
            found[:, tried] = _most_common(ratios)
            ratios[near * found[:, tried : tried + 1] == own] = np.nan
    return found


def _most_common(ratios: _Floats) -> _Floats:
    """A ratio that several numbers of a row share; NaN if there is none."""
    in_order = np.sort(ratios, axis=1)
    repeats = min(_REPEATS, max(in_order.shape[1] // 4, 1))
    is_shared = in_order[:, repeats:] == in_order[:, :-repeats]
    at = is_shared.argmax(axis=1)
    rows = np.arange(len(ratios))
    return np.where(is_shared[rows, at], in_order[rows, at], np.float32(np.nan))
