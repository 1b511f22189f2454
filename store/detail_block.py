"""The block of a step's detail: histograms and neurons, in pages of neighbouring rows. See FORMAT.md, "Detail"."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepscope.store.bf16 import to_bf16
from stepscope.store.blocks import encode_block
from stepscope.store.coding_choice import Numbers
from stepscope.store.detail_table import COLUMNS, END_BIN, FIRST_BIN, SAMPLES, STATISTICS, TOTAL, WIDTHS, without
from stepscope.store.encoding import code_rows
from stepscope.store.frames import FrameList
from stepscope.store.left_out import Thinning
from stepscope.store.pages import Page, pack_pages
from stepscope.store.records import Neurons, Precision, StepRecord
from stepscope.store.streams import part_of, stream_sizes, stream_widths

_NOTHING = np.zeros(0, "<f4")
_THINNED_PARTS = {SAMPLES: Thinning.RAW, STATISTICS: Thinning.NEURONS}


@dataclass(frozen=True)
class PackedDetail:
    """A step's detail, ready to be written; or read, to be written with less in it."""

    number: int
    table: NDArray[np.int64]
    codings: NDArray[np.int32]
    scales: tuple[np.float32, ...]
    pages: tuple[Page, ...]
    thinning: Thinning = Thinning.NOTHING
    dropped: tuple[int, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)

    def bytes_of(self, part: int) -> int:
        """What the pages of a part take."""
        return sum(len(page.stored) for page in self.pages if part_of(page.stream) == part)

    def thinned(self, thinning: Thinning) -> PackedDetail:
        """The same without the parts that this thinning takes away."""
        table, codings, pages = self.table, self.codings.copy(), self.pages
        for part, taken_by in _THINNED_PARTS.items():
            if taken_by <= thinning:
                table = without(table, part)
                codings[part] = 0
                pages = tuple(page for page in pages if part_of(page.stream) != part)
        return replace(self, table=table, codings=codings, pages=pages, thinning=max(thinning, self.thinning))

    def encode(self) -> bytes:
        """The block."""
        index = FrameList()
        index.add("table", self.table)
        rows = [(page.stream, page.end, len(page.stored), page.form) for page in self.pages]
        index.add("pages", np.array(rows, np.int64).reshape(-1, 4))
        index.add("frames", np.array([length for page in self.pages for length in page.lengths], np.uint32))
        index.add("codings", self.codings)
        index.add("scales", np.array(self.scales, np.float32))
        header: dict[str, Any] = {**self.more, "number": self.number, "arrays": index.entries}
        if self.thinning:
            header["thinned"] = int(self.thinning)
        if self.dropped:
            header["dropped"] = list(self.dropped)
        return encode_block("detail", header, [*index.frames, *(page.stored for page in self.pages)])


def pack_detail(record: StepRecord, precision: Precision = "float32") -> PackedDetail:
    """The detail of a step."""
    raw = [None if neurons is None else _raw(neurons, precision) for neurons in record.neurons]
    table = _table(record, raw)
    codings, streams, scales = code_rows(record.tensors, *_pieces(record, table, raw))
    pages = [
        page
        for stream, pieces in enumerate(streams)
        for page in pack_pages(stream, pieces, stream_sizes(table, codings, stream), stream_widths(table, stream))
    ]
    return PackedDetail(record.number, table, codings, tuple(scales), tuple(pages), dropped=record.dropped)


def _raw(neurons: Neurons, precision: Precision) -> NDArray[Any]:
    """Raw values as they are stored; those that would become infinite as bfloat16 keep their precision."""
    rounded = to_bf16(neurons.samples) if precision == "bf16" else None
    if rounded is not None:
        return rounded
    width = 4 if neurons.samples.dtype == np.float32 else 8
    return np.ascontiguousarray(neurons.samples, WIDTHS[width])


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


def _pieces(record: StepRecord, table: NDArray[np.int64], raw: list[NDArray[Any] | None]) -> tuple[list[Numbers], ...]:
    """For each part, the little-endian numbers of each row, flat."""
    counts = np.ascontiguousarray(record.histograms, "<u4")
    bins = table[:, : END_BIN + 1].tolist()
    kept = (None if neurons is None else neurons.statistics for neurons in record.neurons)
    statistics = [_NOTHING if own is None else np.ascontiguousarray(own, "<f4").reshape(-1) for own in kept]
    samples = [_NOTHING if values is None else values.reshape(-1) for values in raw]
    return [counts[row, first:end] for row, (first, end) in enumerate(bins)], statistics, samples
