"""The block of a step's detail: histograms and neurons, in pages of neighbouring rows. See FORMAT.md, "Detail"."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stepscope.store.bf16 import to_bf16
from stepscope.store.blocks import encode_block
from stepscope.store.detail_table import (
    COLUMNS,
    END_BIN,
    FIRST_BIN,
    SAMPLES,
    STATISTICS,
    TOTAL,
    WIDTHS,
    page_width,
    sizes_of,
    widths_of,
    without,
)
from stepscope.store.frames import FrameList, compress, shuffle
from stepscope.store.left_out import Thinning
from stepscope.store.records import Neurons, Precision, StepRecord

PAGE_BYTES = 1 << 18
"""A page ends before the row that would make it larger than this; it has at least one row."""

_THINNED_PARTS = {SAMPLES: Thinning.RAW, STATISTICS: Thinning.NEURONS}

_Piece = bytes | memoryview


class Page(NamedTuple):
    """A page as it is stored: its part, the row at which it ends, whether it is shuffled, and its frame."""

    part: int
    end: int
    is_shuffled: bool
    frame: bytes


@dataclass(frozen=True)
class PackedDetail:
    """A step's detail, ready to be written; or read, to be written with less in it."""

    number: int
    table: NDArray[np.int64]
    pages: tuple[Page, ...]
    thinning: Thinning = Thinning.NOTHING
    dropped: tuple[int, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)

    def bytes_of(self, part: int) -> int:
        """What the pages of a part take."""
        return sum(len(page.frame) for page in self.pages if page.part == part)

    def thinned(self, thinning: Thinning) -> PackedDetail:
        """The same without the parts that this thinning takes away."""
        table, pages = self.table, self.pages
        for part, taken_by in _THINNED_PARTS.items():
            if taken_by <= thinning:
                table = without(table, part)
                pages = tuple(page for page in pages if page.part != part)
        return replace(self, table=table, pages=pages, thinning=max(thinning, self.thinning))

    def encode(self) -> bytes:
        """The block."""
        index = FrameList()
        index.add("table", self.table)
        rows = [(page.part, page.end, len(page.frame), page.is_shuffled) for page in self.pages]
        index.add("pages", np.array(rows, np.int64).reshape(-1, 4))
        header: dict[str, Any] = {**self.more, "number": self.number, "arrays": index.entries}
        if self.thinning:
            header["thinned"] = int(self.thinning)
        if self.dropped:
            header["dropped"] = list(self.dropped)
        return encode_block("detail", header, [*index.frames, *(page.frame for page in self.pages)])


def pack_detail(record: StepRecord, precision: Precision = "float32") -> PackedDetail:
    """The detail of a step."""
    raw = [None if neurons is None else _raw(neurons, precision) for neurons in record.neurons]
    table = _table(record, raw)
    pages = []
    for part, pieces in enumerate(_pieces(record, table, raw)):
        for start, end in _page_bounds(sizes_of(table, part), widths_of(table, part)):
            frame, is_shuffled = _page(b"".join(pieces[start:end]), page_width(table, part, start, end), part)
            pages.append(Page(part, end, is_shuffled, frame))
    return PackedDetail(record.number, table, tuple(pages), dropped=record.dropped)


def _raw(neurons: Neurons, precision: Precision) -> NDArray[Any]:
    """Raw values as they are stored; those that would become infinite as bfloat16 keep their precision."""
    rounded = to_bf16(neurons.samples) if precision == "bf16" else None
    if rounded is not None:
        return rounded
    width = 4 if neurons.samples.dtype == np.float32 else 8
    return np.ascontiguousarray(neurons.samples, WIDTHS[width])


def _page(raw: bytes, width: int, part: int) -> tuple[bytes, bool]:
    """A page's bytes, and whether they are shuffled: raw neurons are, where that is smaller.

    They may repeat those of another row (behind a ReLU, or a module that hands on what its last layer made); whole
    numbers that repeat are found only unshuffled.
    """
    body = compress(shuffle(raw, width))
    plain = compress(raw) if part == SAMPLES else body
    return (plain, False) if len(plain) < len(body) else (body, True)


def _table(record: StepRecord, raw: list[NDArray[Any] | None]) -> NDArray[np.int64]:
    table = np.zeros((len(record.tensors), COLUMNS), np.int64)
    rows, bins = np.nonzero(record.histograms)
    used, firsts = np.unique(rows, return_index=True)
    table[used, FIRST_BIN] = bins[firsts]
    table[used, END_BIN] = bins[np.append(firsts[1:], len(rows))[: len(used)] - 1] + 1
    for row, (neurons, values) in enumerate(zip(record.neurons, raw, strict=True)):
        if neurons is not None and values is not None:
            samples, kept = values.shape
            table[row, TOTAL:] = neurons.total, kept, samples, values.itemsize, neurons.statistics is not None
    return table


def _pieces(
    record: StepRecord, table: NDArray[np.int64], raw: list[NDArray[Any] | None]
) -> tuple[list[_Piece], list[_Piece], list[_Piece]]:
    """For each part, the little-endian numbers of each row, contiguous."""
    counts = np.ascontiguousarray(record.histograms, "<u4")
    bins = table[:, : END_BIN + 1].tolist()
    statistics: list[_Piece] = []
    for neurons in record.neurons:
        kept = None if neurons is None else neurons.statistics
        statistics.append(b"" if kept is None else np.ascontiguousarray(kept, "<f4").data)
    samples: list[_Piece] = [b"" if values is None else values.data for values in raw]
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
