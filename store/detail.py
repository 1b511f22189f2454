"""A step's histograms and neurons, as a reader sees them: read page by page, when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepscope.store.bf16 import from_bf16
from stepscope.store.block_file import BlockFile
from stepscope.store.decoding import decode
from stepscope.store.detail_block import PackedDetail
from stepscope.store.detail_table import COLUMNS, HISTOGRAM, SAMPLES, STATISTICS, TOTAL, WIDTHS
from stepscope.store.errors import DamagedError, damaged_unless
from stepscope.store.frames import ArrayEntry, array_entries, unpack_array
from stepscope.store.left_out import LeftOut, Thinning
from stepscope.store.pages import PageFile
from stepscope.store.records import HISTOGRAM_BINS, NEURON_STATISTICS, Neurons
from stepscope.store.streams import no_codings, part_of, row_width, stream_sizes


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
        self._number = number
        self._payload = place.payload_offset
        self._row_ends: dict[int, list[int]] = {}
        with damaged_unless(f"the detail of step {number}"):
            self.left_out = _left_out(header, rows)
            arrays = array_entries(header["arrays"], place.payload_length)
            self._table = self._array(arrays["table"], (rows, COLUMNS))
            self._codings = no_codings(rows)
            self._scales, frame_lengths = np.zeros(0, np.float32), np.zeros(0, np.int64)
            if "codings" in arrays:
                self._codings = self._array(arrays["codings"], self._codings.shape)
                self._scales = self._array(arrays["scales"], None)
                frame_lengths = self._array(arrays["frames"], None)
            first = max(entry.offset + entry.length for entry in arrays.values())
            self._entries = pages = self._array(arrays["pages"], None)
            self._pages = PageFile(file, self._payload + first, place.end, pages, frame_lengths)

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

    def stored_bytes(self, part: int) -> int:
        """What the pages of a part take."""
        return sum(length for stream, _, length, _ in self._entries.tolist() if part_of(stream) == part)

    def packed(self) -> PackedDetail:
        """All of it as it is stored, to be written somewhere else.

        Raises:
            DamagedError: a page cannot be read.
        """
        with damaged_unless("detail"):
            pages, scales = tuple(self._pages.stored()), tuple(self._scales)
        left_out = self.left_out
        return PackedDetail(
            self._number, self._table, self._codings, scales, pages, left_out.thinning, tuple(sorted(left_out.dropped))
        )

    def _array(self, entry: ArrayEntry, shape: tuple[int, ...] | None) -> NDArray[Any]:
        if shape is not None and entry.shape != shape:
            raise ValueError(f"{entry.name} has the shape {entry.shape}, expected {shape}")
        frame = self._file.read(self._payload + entry.offset, entry.length)
        return unpack_array(frame, entry.dtype, entry.shape, entry.shuffled)

    def _raw(self, part: int, row: int) -> bytes:
        """The bytes of a row in a part."""
        return decode(part, row, self._codings, self._scales, self._piece)

    def _piece(self, stream: int, row: int) -> bytes:
        """What a row has in a stream."""
        if stream not in self._row_ends:
            sizes = stream_sizes(self._table, self._codings, stream)
            self._row_ends[stream] = [0, *np.cumsum(sizes).tolist()]
        return self._pages.piece(stream, row, self._row_ends[stream], row_width(self._table, stream, row))


def _left_out(header: Mapping[str, Any], rows: int) -> LeftOut:
    return LeftOut(Thinning(header.get("thinned", 0)), frozenset(map(int, header.get("dropped", ()))), rows)
