"""Odd courses of a learning rate: past its end, past its warm-up, or once more from its beginning."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis.history import Values

_LEVELS = 8
_JUMP, _LOW, _HIGH = 0.35, 0.01, 0.5
_EVEN, _FITS, _START = 0.05, 0.03, 0.1


def rises_again(rates: Values) -> int | None:
    """Where a rate that fell smoothly from its peak to almost nothing is lowest, if it rises smoothly to the very end.

    Restarts jump up at once; cycles on purpose keep a tenth of the peak.
    """
    peak = float(np.max(rates, initial=0.0))
    bottom = int(np.argmin(rates)) if len(rates) else 0
    before, after = rates[:bottom], rates[bottom:]
    if not peak > 0 or rates[bottom] > _LOW * peak or np.max(before, initial=0.0) < 0.9 * peak:
        return None
    rises = np.diff(after)
    levels = int(np.count_nonzero(rises > 0))
    is_smooth = levels >= _LEVELS // 2 and bool(np.all(rises >= -1e-9 * peak)) and np.max(rises) < _JUMP * peak
    fell = np.diff(before)
    is_steady = bool(np.all(fell[int(np.argmax(before)) :] <= 1e-9 * peak))
    return bottom if is_smooth and is_steady and rates[-1] > _HIGH * peak else None


def passes_warm_up(rates: Values, end: float) -> int | None:
    """Where a rate that climbs evenly from near zero to the last step passes the end of its warm-up."""
    if len(rates) < _LEVELS or not rates[0] < _HIGH * end or rates[-1] < 1.5 * end:
        return None
    rises = np.diff(rates)
    is_even = bool(np.all(rises > 0)) and np.ptp(rises) < _EVEN * np.max(rises)
    return int(np.argmax(rates > end)) if is_even else None


def climbs_to_the_end(rates: Values, steps: NDArray[np.int64]) -> bool:
    """Whether a rate climbs evenly from near zero to the very last of its steps."""
    rises = np.diff(rates) / np.diff(steps)
    return (
        len(rates) >= _LEVELS
        and bool(np.all(rises > 0) and np.ptp(rises) < _HIGH * np.max(rises))
        and (float(rates[0]) < _START * float(rates[-1]))
    )


def begins_anew(rates: Values) -> int | None:
    """Where a rate that was on its way down goes once through the same values again, from the first one on.

    A cosine that was at its end is restarted on purpose.
    """
    rises = np.flatnonzero(np.diff(rates) > 0) + 1
    if len(rises) != 1 or rates[0] != np.max(rates):
        return None
    place = int(rises[0])
    before, after = rates[:place], rates[place:]
    levels = len(np.unique(before))
    if levels < _LEVELS or len(np.unique(after)) < 2 or before[-1] > _HIGH * rates[0]:
        return None
    offset = next((start for start in range(3) if _is_same(before[start : start + len(after)], after)), None)
    return None if offset is None or _is_whole_cosine(before) else place


def _is_same(one: Values, other: Values) -> bool:
    length = min(len(one), len(other))
    return length > 1 and bool(np.allclose(one[:length], other[:length], rtol=1e-6, atol=0.0))


def _is_whole_cosine(rates: Values) -> bool:
    """Whether rates go along half a cosine, up to its last stair."""
    stairs = rates[np.concatenate([[True], np.diff(rates) != 0])]
    phase = np.linspace(0, 1, len(stairs) + 1)[:-1]
    floors = [0.0, float(stairs[-1])]
    shapes = (floor + (stairs[0] - floor) * (1 + np.cos(np.pi * phase)) / 2 for floor in floors)
    return any(float(np.abs(stairs - shape).max()) < _FITS * stairs[0] for shape in shapes)
