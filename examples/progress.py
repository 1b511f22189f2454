"""A line of progress on the terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TextIO

WIDTH = 20
REDRAW_SECONDS = 0.1


def progress(total: int, label: str, stream: TextIO | None = None) -> Iterator[int]:
    """Count to ``total`` and draw how far it is: all the time on a terminal, else once at the end.

    >>> import sys
    >>> sum(progress(4, "training", sys.stdout))  # doctest: +ELLIPSIS
    training [####################] 4/4, 0 s
    6
    """
    stream = sys.stderr if stream is None else stream
    started = drawn = time.perf_counter()
    live = stream.isatty()
    for number in range(total):
        yield number
        now = time.perf_counter()
        if number + 1 == total or (live and now - drawn >= REDRAW_SECONDS):
            drawn = now
            stream.write(("\r" if live else "") + _line(label, number + 1, total, now - started))
            stream.flush()
    stream.write("\n")


def _line(label: str, done: int, total: int, seconds: float) -> str:
    bar = "#" * (WIDTH * done // total)
    return f"{label} [{bar:{WIDTH}}] {done}/{total}, {seconds:.0f} s"
