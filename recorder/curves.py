"""Points of curves on their way to the writer: fast ones together, slow ones at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from stepscope.recorder.scalars import Point

_TOGETHER = 256
_SECONDS = 1.0
"""A live curve is at most so far behind."""


class Curves:
    """Collects points and hands them on; ``write`` takes those that have gathered."""

    def __init__(self, write: Callable[[Sequence[Point]], None]) -> None:
        self._write = write
        self._points: list[Point] = []
        self._written = -_SECONDS

    def add(self, points: Iterable[Point]) -> None:
        """Keep points until the next are written."""
        self._points += points

    def log(self, point: Point) -> None:
        """Keep a point, and write those that have gathered if it is time."""
        self._points.append(point)
        if len(self._points) >= _TOGETHER or time.monotonic() - self._written >= _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what has gathered."""
        points, self._points, self._written = self._points, [], time.monotonic()
        self._write(points)
