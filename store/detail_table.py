"""The table of a detail block: for each row, what is kept of it. See FORMAT.md, "Detail"."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stepscope.store.records import NEURON_STATISTICS

HISTOGRAM, STATISTICS, SAMPLES = range(3)
"""The parts of which a row has up to one each."""

FIRST_BIN, END_BIN, TOTAL, KEPT, KEPT_SAMPLES, WIDTH, HAS_STATISTICS = range(7)
"""Columns of the table of rows; ``WIDTH`` is the bytes of a raw value, 0 without neurons."""

COLUMNS = 7


def widths_of(table: NDArray[np.int64], part: int) -> NDArray[np.int64]:
    """The bytes of a number in each row of a part; rows without raw values go along with narrow ones."""
    if part == SAMPLES:
        return np.where(table[:, WIDTH] == 8, 8, 4)
    return np.full(len(table), 4, np.int64)


def sizes_of(table: NDArray[np.int64], part: int) -> NDArray[np.int64]:
    """The bytes of each row in a part."""
    sizes: NDArray[np.int64] = table[:, WIDTH] * table[:, KEPT] * table[:, KEPT_SAMPLES]
    if part == HISTOGRAM:
        sizes = 4 * (table[:, END_BIN] - table[:, FIRST_BIN])
    elif part == STATISTICS:
        sizes = 4 * len(NEURON_STATISTICS) * table[:, KEPT] * (table[:, HAS_STATISTICS] != 0)
    return sizes
