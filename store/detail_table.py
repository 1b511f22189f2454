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

WIDTHS = {2: "<u2", 4: "<f4", 8: "<f8"}
"""How raw values of each width are stored; those of two bytes are the bits of a bfloat16."""

_USUAL_WIDTH = 4


def sizes_of(table: NDArray[np.int64], part: int) -> NDArray[np.int64]:
    """The bytes of each row in a part."""
    sizes: NDArray[np.int64] = table[:, WIDTH] * table[:, KEPT] * table[:, KEPT_SAMPLES]
    if part == HISTOGRAM:
        sizes = 4 * (table[:, END_BIN] - table[:, FIRST_BIN])
    elif part == STATISTICS:
        sizes = 4 * len(NEURON_STATISTICS) * table[:, KEPT] * (table[:, HAS_STATISTICS] != 0)
    return sizes


def page_width(table: NDArray[np.int64], part: int, first: int, end: int) -> int:
    """The bytes of a number in the page of rows ``first`` to ``end - 1``: that of the first row with raw values."""
    widths = table[first:end, WIDTH]
    used = widths[widths > 0]
    return int(used[0]) if part == SAMPLES and len(used) else _USUAL_WIDTH


def widths_of(table: NDArray[np.int64], part: int) -> NDArray[np.int64]:
    """The bytes of a number in each row of a part; rows without raw values go along with those in front of them."""
    widths = table[:, WIDTH]
    used = np.flatnonzero(widths)
    if part != SAMPLES or not len(used):
        return np.full(len(table), _USUAL_WIDTH, np.int64)
    nearest = np.searchsorted(used, np.arange(len(table)), side="right") - 1
    return widths[used[np.maximum(nearest, 0)]]


def without(table: NDArray[np.int64], part: int) -> NDArray[np.int64]:
    """The table of the same rows, of which a part was taken away. How many neurons there were stays known."""
    thinned = table.copy()
    thinned[:, KEPT_SAMPLES if part == SAMPLES else HAS_STATISTICS] = 0
    nothing = (thinned[:, KEPT_SAMPLES] == 0) & (thinned[:, HAS_STATISTICS] == 0)
    thinned[nothing, WIDTH] = 0
    return thinned
