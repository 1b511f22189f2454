"""The block of a step's detail: histograms and neurons, in pages of neighbouring rows. See FORMAT.md, "Detail"."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from stepscope.store.blocks import encode_block
from stepscope.store.detail_table import COLUMNS, END_BIN, FIRST_BIN, SAMPLES, TOTAL, WIDTH, sizes_of, widths_of
from stepscope.store.frames import FrameList, compress, shuffle
from stepscope.store.records import StepRecord

PAGE_BYTES = 1 << 18
"""A page ends before the row that would make it larger than this; it has at least one row."""

_Piece = bytes | memoryview


def encode_detail(record: StepRecord) -> bytes:
    """The detail block of a step."""
    table = _table(record)
    pages: list[tuple[int, int, int, bool]] = []
    bodies: list[bytes] = []
    for part, pieces in enumerate(_pieces(record, table)):
        widths = widths_of(table, part)
        for start, end in _page_bounds(sizes_of(table, part), widths):
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
