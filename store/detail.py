"""A step's histograms and neurons, as a reader sees them: read page by page, when they are asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepscope.store.block_file import BlockFile
from stepscope.store.detail_table import COLUMNS, HISTOGRAM, SAMPLES, STATISTICS, sizes_of, widths_of
from stepscope.store.errors import DamagedError, damaged_unless
from stepscope.store.frames import ArrayEntry, array_entries, decompress, unpack_array, unshuffle
from stepscope.store.records import HISTOGRAM_BINS, NEURON_STATISTICS, Neurons


@dataclass(frozen=True)
class _Pages:
    """The pages of one part: the row at which each ends, where its bytes are, and whether they are shuffled."""

    row_ends: NDArray[np.int64]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    shuffled: NDArray[np.int64]


class Detail:
    """A step's detail block; pages are read when they are asked for.

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
        self._last_pages: dict[int, tuple[int, bytes]] = {}
        with damaged_unless(f"the detail of step {number}"):
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
            raw = np.frombuffer(self._raw(SAMPLES, row), "<f4" if width == 4 else "<f8").reshape(samples, kept)
            statistics = None
            if has_statistics:
                statistics = np.frombuffer(self._raw(STATISTICS, row), "<f4").reshape(len(NEURON_STATISTICS), kept)
        return Neurons(total, statistics, raw)

    def _array(self, entry: ArrayEntry, shape: tuple[int, ...] | None) -> NDArray[np.int64]:
        if shape is not None and entry.shape != shape:
            raise ValueError(f"{entry.name} has the shape {entry.shape}, expected {shape}")
        frame = self._file.read(self._payload + entry.offset, entry.length)
        return unpack_array(frame, entry.dtype, entry.shape, entry.shuffled)

    def _raw(self, part: int, row: int) -> bytes:
        """The bytes of a row in a part."""
        page = int(np.searchsorted(self._pages[part].row_ends, row, side="right"))
        first = int(self._pages[part].row_ends[page - 1]) if page else 0
        sizes = sizes_of(self._table, part)
        cached = self._last_pages.get(part)
        if cached is None or cached[0] != page:
            cached = self._last_pages[part] = page, self._page(part, page, first, sizes)
        offset = int(sizes[first:row].sum())
        return cached[1][offset : offset + int(sizes[row])]

    def _page(self, part: int, page: int, first: int, sizes: NDArray[np.int64]) -> bytes:
        """The bytes of a page, whose first row is given."""
        pages = self._pages[part]
        start, length = int(pages.starts[page]), int(pages.lengths[page])
        if length < 0 or start + length > self._end:
            raise ValueError("a page reaches out of its block")
        raw = decompress(self._file.read(start, length), int(sizes[first : pages.row_ends[page]].sum()))
        return unshuffle(raw, int(widths_of(self._table, part)[first])) if pages.shuffled[page] else raw
