"""The streams of a detail block: sequences of pages, and the bytes that each row has in them. See FORMAT.md, "Detail".

The first three hold the numbers of the three parts; the others what codings of rows need besides.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stepscope.store.codings import CHOICE, DIFFERENCE, PLAIN
from stepscope.store.detail_table import HISTOGRAM, SAMPLES, STATISTICS, WIDTH, sizes_of, widths_of

PARTS = (HISTOGRAM, STATISTICS, SAMPLES)
DIFFERENCES_OF = {STATISTICS: 3, SAMPLES: 4}
CHOICES_OF = {STATISTICS: 5, SAMPLES: 6}
"""By part, the number of the stream that holds its rows' differences, and their choices."""

STREAMS = range(7)

CODING, DISTANCE, LITERALS = range(3)
"""What ``codings`` says of each row of a part; shape ``(3 parts, 3, rows)``."""

Table = NDArray[np.int64]


def no_codings(rows: int) -> NDArray[np.int32]:
    """Of a block whose rows are all plain."""
    return np.zeros((len(PARTS), 3, rows), np.int32)


def part_of(stream: int) -> int:
    """The part whose rows a stream is about."""
    return stream if stream in PARTS else STATISTICS + (stream - len(PARTS)) % 2


def stream_widths(table: Table, stream: int) -> NDArray[np.int64]:
    """The bytes of a number in each row of a stream."""
    if stream in PARTS:
        return widths_of(table, stream)
    return np.full(len(table), 1 if stream in CHOICES_OF.values() else 4, np.int64)


def row_width(table: Table, stream: int, row: int) -> int:
    """The bytes of a number of a row that has anything in this stream."""
    if stream in CHOICES_OF.values():
        return 1
    return int(table[row, WIDTH]) if stream == SAMPLES else 4


def stream_sizes(table: Table, codings: NDArray[np.int32], stream: int) -> NDArray[np.int64]:
    """The bytes of each row in a stream."""
    part = part_of(stream)
    coding, sizes, widths = codings[part, CODING], sizes_of(table, part), widths_of(table, part)
    if stream == DIFFERENCES_OF.get(part):
        return np.where(coding == DIFFERENCE, sizes, 0)
    if stream == CHOICES_OF.get(part):
        return np.where(coding == CHOICE, sizes // widths, 0)
    literals = codings[part, LITERALS] * widths
    return np.select([coding == PLAIN, coding == CHOICE], [sizes, literals], 0)
