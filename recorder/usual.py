"""What is usual of a number that is seen again and again."""

from __future__ import annotations

from collections import deque
from statistics import median

_REMEMBERED = 64
_ENOUGH = 32
_FRESH = 16
_TIMES = 10.0
_DEVIATIONS = 30.0
_OF_PEAK = 0.1


class Usual:
    """Remembers the last values; far above them is more than ten times their median, and than 30 of their deviations,
    and no less than a tenth of what was usual once: when training has ended in a minimum, rounding errors jump.

    The deviation is the median distance from the median (MAD), times 1.4826, as of a normal distribution. Nothing is
    unusual before 32 values were seen. Both are computed again after 16 values only.
    """

    def __init__(self) -> None:
        self.middle = 0.0
        self._limit = float("inf")
        self._values: deque[float] = deque(maxlen=_REMEMBERED)
        self._seen = 0
        self._peak = 0.0

    def is_exceeded_by(self, value: float) -> bool:
        return value > self._limit

    def add(self, value: float) -> None:
        """Remember a finite value."""
        self._values.append(value)
        self._seen += 1
        if self._seen >= _ENOUGH and self._seen % _FRESH == 0:
            self.middle = median(self._values)
            deviation = 1.4826 * median(abs(other - self.middle) for other in self._values)
            self._peak = max(self._peak, self.middle)
            self._limit = max(_TIMES * self.middle, self.middle + _DEVIATIONS * deviation, _OF_PEAK * self._peak)
