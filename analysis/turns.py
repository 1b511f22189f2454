"""Where a loss leaves its course: it jumps up and stays there; and steps that must not be overlooked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis.history import Values
from stepscope.analysis.robust import NORMAL

FACTOR, DEVIATIONS, PART = 3.0, 10.0, 0.2
"""The defaults of ``find_turn``; the rule ``loss-jump`` says what they are and where they come from."""
_LEAST = 40
"""Fewer points have no course to leave."""
_MOST = 0.8
"""The share of the points after a jump that must be above."""
_SPIKES = 3
"""How many of the highest points are of interest."""


@dataclass(frozen=True)
class Turn:
    """From the point ``index`` on, a loss is far above the level that it had before.

    Attributes:
        index: of the first point on the new level.
        before, after: the two levels: medians of some points on each side.
    """

    index: int
    before: float
    after: float


def find_turn(
    values: Values, *, factor: float = FACTOR, deviations: float = DEVIATIONS, part: float = PART
) -> Turn | None:
    """The largest jump of a loss to a level from which it does not come back.

    Args:
        values: ``(n,)``, finite.
        factor: times its level before.
        deviations: by how many of them (1.4826 MAD of the points before) it must rise.
        part: of the first tenth's level, by which it must rise.
    """
    count = len(values)
    if count < _LEAST:
        return None
    width = min(max(count // 20, 10), 25)
    windows = np.lib.stride_tricks.sliding_window_view(values, width)
    level = np.median(windows, axis=1)
    spread = NORMAL * np.median(np.abs(windows - level[:, None]), axis=1)
    before, after, noise = level[:-width], level[width:], spread[:-width]
    start, end = (float(np.median(part)) for part in (values[: max(3, count // 10)], values[-max(3, count // 10) :]))
    rise = after - before
    high = (
        (rise > (factor - 1) * np.abs(before))
        & (rise > deviations * noise)
        & (rise > part * abs(start))
        & (end - before > (factor - 1) * np.abs(before))
    )
    if not high.any():
        return None
    place = int(np.argmax(np.where(high, rise, -np.inf)))
    while place > 0 and high[place - 1]:  # it may rise further after its jump
        place -= 1
    low = float(before[place])
    threshold = low + max(deviations * float(noise[place]), (factor - 1) * abs(low))
    index = _first_above(values[: place + 2 * width], threshold, place)
    return Turn(index, low, float(np.median(values[index : index + width])))


def _first_above(values: Values, threshold: float, start: int) -> int:
    """The first point that is above, as are most that follow."""
    above = values[start:] > threshold
    share = np.cumsum(above[::-1])[::-1] / np.arange(len(above), 0, -1)
    good = np.flatnonzero(above & (share > _MOST))
    return start + (int(good[0]) if len(good) else len(above) // 2)


def points_of_interest(values: Values) -> Iterator[int]:
    """The points of a loss with whose surroundings a sample of its steps should not do without.

    Args:
        values: ``(n,)``; they may be not finite.
    """
    good = np.isfinite(values)
    if not good.all():
        yield int(np.argmin(good))
    kept: NDArray[np.int64] = np.flatnonzero(good)
    if len(kept) < _LEAST:
        return
    turn = find_turn(values[kept])
    if turn is not None:
        yield int(kept[turn.index])
    excess = values[kept][5:-5] - np.median(np.lib.stride_tricks.sliding_window_view(values[kept], 11), axis=1)
    for place in np.argsort(excess)[-_SPIKES:]:
        yield int(kept[place + 5])
