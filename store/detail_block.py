"""The block of a step's detail: histograms and neurons, in pages of neighbouring rows. See FORMAT.md, "detail"."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepscope.store.block_file import BlockFile
from stepscope.store.blocks import encode_block
from stepscope.store.errors import DamagedError, damaged_unless
from stepscope.store.frames import (
    ArrayEntry,
    FrameList,
    array_entries,
    compress,
    decompress,
    shuffle,
    unpack_array,
    unshuffle,
)
from stepscope.store.records import HISTOGRAM_BINS, NEURON_STATISTICS, Neurons, StepRecord

PAGE_BYTES = 1 << 18
"""A page ends before the row that would make it larger than this; it has at least one row."""

HISTOGRAM, STATISTICS, SAMPLES = range(3)
"""The parts of which a row has up to one each."""

FIRST_BIN, END_BIN, TOTAL, KEPT, KEPT_SAMPLES, WIDTH, HAS_STATISTICS = range(7)
"""Columns of the table of rows; ``WIDTH`` is the bytes of a raw value, 0 without neurons."""

COLUMNS = 7

_Piece = bytes | memoryview


def encode_detail(record: StepRecord) -> bytes:
    """The detail block of a step."""
    table = _table(record)
    pages: list[tuple[int, int, int, bool]] = []
    bodies: list[bytes] = []
    for part, pieces in enumerate(_pieces(record, table)):
        widths = _widths(table, part)
        for start, end in _page_bounds(_sizes(table, part), widths):
            body, shuffled = _page(b"".join(pieces[start:end]), int(widths[start]), part)
            pages.append((part, end, len(body), shuffled))
            bodies.append(body)
    index = FrameList()
    index.add("table", table)
    index.add("pages", np.array(pages, np.int64).reshape(-1, 4))
    header = {"number": record.number, "arrays": index.entries}
    return encode_block("detail", header, [*index.frames, *bodies])


def _page(raw: bytes, width: int, part: int) -> tuple[bytes, bool]:
    """A page's bytes, and whether they are shuffled: raw neurons are, where that is smaller.

    They may repeat those of another row (behind a ReLU, or a module that hands on what its last layer made); whole
    numbers that repeat are found only unshuffled.
    """
    body = compress(shuffle(raw, width))
    plain = compress(raw) if part == SAMPLES else body
    return (plain, False) if len(plain) < len(body) else (body, True)


def _table(record: StepRecord) -> NDArray[np.int64]:
    table = np.zeros((len(record.tensors), COLUMNS), np.int64)
    rows, bins = np.nonzero(record.histograms)
    used, firsts = np.unique(rows, return_index=True)
    table[used, FIRST_BIN] = bins[firsts]
    table[used, END_BIN] = bins[np.append(firsts[1:], len(rows))[: len(used)] - 1] + 1
    for row, neurons in enumerate(record.neurons):
        if neurons is not None:
            samples, kept = neurons.samples.shape
            width = 4 if neurons.samples.dtype == np.float32 else 8
            table[row, TOTAL:] = neurons.total, kept, samples, width, neurons.statistics is not None
    return table


def _pieces(record: StepRecord, table: NDArray[np.int64]) -> tuple[list[_Piece], list[_Piece], list[_Piece]]:
    """For each part, the little-endian numbers of each row, contiguous."""
    counts = np.ascontiguousarray(record.histograms, "<u4")
    bins = table[:, : END_BIN + 1].tolist()
    statistics: list[_Piece] = []
    samples: list[_Piece] = []
    for neurons, width in zip(record.neurons, table[:, WIDTH].tolist(), strict=True):
        kept = None if neurons is None else neurons.statistics
        statistics.append(b"" if kept is None else np.ascontiguousarray(kept, "<f4").data)
        samples.append(b"" if neurons is None else np.ascontiguousarray(neurons.samples, f"<f{width}").data)
    return [counts[row, first:end].data for row, (first, end) in enumerate(bins)], statistics, samples


def _page_bounds(sizes: NDArray[np.int64], widths: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """The rows between which pages lie: full, or as far as numbers are of the same width."""
    totals = np.cumsum(sizes)
    changes = [*(np.flatnonzero(np.diff(widths)) + 1).tolist(), len(sizes)]
    start = 0
    for change in changes:
        while start < change:
            before = int(totals[start - 1]) if start else 0
            full = int(np.searchsorted(totals, before + PAGE_BYTES, side="right"))
            end = min(max(full, start + 1), change)
            yield start, end
            start = end


def _widths(table: NDArray[np.int64], part: int) -> NDArray[np.int64]:
    """The bytes of a number in each row of a part; rows without raw values go along with narrow ones."""
    if part == SAMPLES:
        return np.where(table[:, WIDTH] == 8, 8, 4)
    return np.full(len(table), 4, np.int64)


def _sizes(table: NDArray[np.int64], part: int) -> NDArray[np.int64]:
    """The bytes of each row in a part."""
    sizes: NDArray[np.int64] = table[:, WIDTH] * table[:, KEPT] * table[:, KEPT_SAMPLES]
    if part == HISTOGRAM:
        sizes = 4 * (table[:, END_BIN] - table[:, FIRST_BIN])
    elif part == STATISTICS:
        sizes = 4 * len(NEURON_STATISTICS) * table[:, KEPT] * (table[:, HAS_STATISTICS] != 0)
    return sizes


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
        sizes = _sizes(self._table, part)
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
        return unshuffle(raw, int(_widths(self._table, part)[first])) if pages.shuffled[page] else raw
