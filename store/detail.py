"""A step's histograms and neurons, as a reader sees them: read page by page, when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stepscope.store.bf16 import from_bf16
from stepscope.store.block_file import BlockFile
from stepscope.store.detail_table import (
    COLUMNS,
    HISTOGRAM,
    SAMPLES,
    STATISTICS,
    TOTAL,
    WIDTHS,
    page_width,
    sizes_of,
)
from stepscope.store.errors import DamagedError, damaged_unless
from stepscope.store.frames import ArrayEntry, array_entries, decompress, unpack_array, unshuffle
from stepscope.store.left_out import LeftOut, Thinning
from stepscope.store.records import HISTOGRAM_BINS, NEURON_STATISTICS, Neurons


@dataclass(frozen=True)
class _Pages:
    """The pages of one part: the row at which each ends, where its bytes are, and whether they are shuffled."""

    row_ends: NDArray[np.int64]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    shuffled: NDArray[np.int64]


class _Page(NamedTuple):
    """A page that was read: rows ``first`` to ``end - 1``."""

    first: int
    end: int
    raw: bytes


class Detail:
    """A step's detail block; pages are read when they are asked for.

    Attributes:
        left_out: what is missing of it.

    Raises:
        DamagedError: its block cannot be read, or is of another step.
    """

    def __init__(self, file: BlockFile, offset: int, number: int, rows: int) -> None:
        place, header = file.block(offset, "detail")
        if header.get("number") != number:
            raise DamagedError(f"{file.name} has the detail of another step at byte {offset}, expected step {number}")
        self._file = file
        self._payload = place.payload_offset
        self._end = place.end
        self._last_pages: dict[int, _Page] = {}
        self._row_ends: dict[int, list[int]] = {}
        with damaged_unless(f"the detail of step {number}"):
            self.left_out = _left_out(header, rows)
            arrays = array_entries(header["arrays"], place.payload_length)
            self._table = self._array(arrays["table"], (rows, COLUMNS))
            pages = self._array(arrays["pages"], None)
            first = max(entry.offset + entry.length for entry in arrays.values())
            starts = self._payload + first + np.cumsum(pages[:, 2]) - pages[:, 2]
            self._pages = {
                part: _Pages(pages[own, 1], starts[own], pages[own, 2], pages[own, 3])
                for part, own in ((part, pages[:, 0] == part) for part in (HISTOGRAM, STATISTICS, SAMPLES))
            }

    def histogram(self, row: int) -> NDArray[np.int64]:
        """``(HISTOGRAM_BINS,)`` counts of a row."""
        counts = np.zeros(HISTOGRAM_BINS, np.int64)
        first, end = self._table[row, :2].tolist()
        with damaged_unless("a histogram"):
            counts[first:end] = np.frombuffer(self._raw(HISTOGRAM, row), "<u4")
        return counts

    def neurons(self, row: int) -> Neurons | None:
        """The kept neurons of a row, or None."""
        _, _, total, kept, samples, width, has_statistics = self._table[row].tolist()
        if not width:
            return None
        with damaged_unless("neurons"):
            raw = np.frombuffer(self._raw(SAMPLES, row), WIDTHS[width]).reshape(samples, kept)
            statistics = None
            if has_statistics:
                statistics = np.frombuffer(self._raw(STATISTICS, row), "<f4").reshape(len(NEURON_STATISTICS), kept)
        if width == 2:
            return Neurons(total, statistics, from_bf16(raw), "bf16")
        return Neurons(total, statistics, raw)

    def left_out_of(self, row: int) -> str:
        """Why neurons of a row are missing, in words; empty if there never were any, or if they are all there."""
        thinned = self.left_out.thinning and self._table[row, TOTAL] > 0
        return self.left_out.sentence if thinned or row in self.left_out.dropped else ""

    def _array(self, entry: ArrayEntry, shape: tuple[int, ...] | None) -> NDArray[np.int64]:
        if shape is not None and entry.shape != shape:
            raise ValueError(f"{entry.name} has the shape {entry.shape}, expected {shape}")
        frame = self._file.read(self._payload + entry.offset, entry.length)
        return unpack_array(frame, entry.dtype, entry.shape, entry.shuffled)

    def _raw(self, part: int, row: int) -> bytes:
        """The bytes of a row in a part. The last page of each part is kept: its next row is often asked for next."""
        ends = self._ends(part)
        if ends[row] == ends[row + 1]:
            return b""
        page = self._last_pages.get(part)
        if page is None or not page.first <= row < page.end:
            page = self._last_pages[part] = self._page(part, row, ends)
        before = ends[page.first]
        return page.raw[ends[row] - before : ends[row + 1] - before]

    def _ends(self, part: int) -> list[int]:
        """Where each row would start if all pages of a part were one, and where the last would end."""
        if part not in self._row_ends:
            self._row_ends[part] = [0, *np.cumsum(sizes_of(self._table, part)).tolist()]
        return self._row_ends[part]

    def _page(self, part: int, row: int, ends: list[int]) -> _Page:
        """The page that holds a row."""
        pages = self._pages[part]
        number = int(np.searchsorted(pages.row_ends, row, side="right"))
        first, end = int(pages.row_ends[number - 1]) if number else 0, int(pages.row_ends[number])
        start, length = int(pages.starts[number]), int(pages.lengths[number])
        if length < 0 or start + length > self._end:
            raise ValueError("a page reaches out of its block")
        raw = decompress(self._file.read(start, length), ends[end] - ends[first])
        if pages.shuffled[number]:
            raw = unshuffle(raw, page_width(self._table, part, first, end))
        return _Page(first, end, raw)


def _left_out(header: Mapping[str, Any], rows: int) -> LeftOut:
    return LeftOut(Thinning(header.get("thinned", 0)), frozenset(map(int, header.get("dropped", ()))), rows)
