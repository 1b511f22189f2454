"""The ``columns`` file: the same statistics once more, turned so that one row's history can be read alone.

It is derived from the ``steps`` file and may be deleted; what it lacks is read from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepscope.store import codec
from stepscope.store.block_file import BlockFile
from stepscope.store.blocks import BlockPlace, encode_block
from stepscope.store.errors import damaged_unless
from stepscope.store.frames import ArrayEntry, FrameList, array_entries, pack_array, unpack_array
from stepscope.store.records import BATCH_AGGREGATES, SAMPLE_STATISTICS, STATISTICS, StepRecord

CHUNK_STEPS = 64
WORTHWHILE_STEPS = 8
"""At a trial's end, fewer steps than this get no columns: reading them one by one is as fast, and smaller."""

_MAX_BUFFERED = 48 << 20

N_STATISTICS = len(STATISTICS)
N_AGGREGATES = len(SAMPLE_STATISTICS) * len(BATCH_AGGREGATES)


@dataclass
class _Buffer:
    numbers: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    statistics: list[NDArray[np.float64]] = field(default_factory=list)
    batches: list[NDArray[np.float32]] = field(default_factory=list)
    size: int = 0


class ColumnWriter:
    """Collects steps of equal layout and hands out a ``columns`` block for every ``CHUNK_STEPS`` of them."""

    def __init__(self, emit: Callable[[bytes], object]) -> None:
        self._emit = emit
        self._buffers: dict[tuple[bytes, int], _Buffer] = {}
        self._size = 0

    def add(self, record: StepRecord, layout: bytes, place: int) -> None:
        """Take in a step, whose block is at this offset of the steps' file."""
        if not record.tensors:
            return
        key = (layout, record.per_sample.shape[1])
        buffer = self._buffers.setdefault(key, _Buffer())
        batch = batch_columns(record.aggregates, record.per_sample)
        statistics = np.asarray(record.statistics, np.float64)
        size = statistics.nbytes + batch.nbytes
        buffer.numbers.append(record.number)
        buffer.places.append(place)
        buffer.statistics.append(statistics)
        buffer.batches.append(batch)
        buffer.size += size
        self._size += size
        if len(buffer.numbers) >= CHUNK_STEPS:
            self._flush(key)
        while self._size > _MAX_BUFFERED:
            self._flush(max(self._buffers, key=lambda k: self._buffers[k].size))

    def flush(self) -> None:
        """Write out what has been collected so far, where it is worth it."""
        for key, buffer in list(self._buffers.items()):
            if len(buffer.numbers) >= WORTHWHILE_STEPS:
                self._flush(key)

    def _flush(self, key: tuple[bytes, int]) -> None:
        buffer = self._buffers.pop(key)
        self._size -= buffer.size
        self._emit(encode_columns(key[0], buffer.numbers, buffer.places, buffer.statistics, buffer.batches))


def batch_columns(aggregates: NDArray[np.float32], per_sample: NDArray[np.float32]) -> NDArray[np.float32]:
    """Aggregates and samples side by side: ``(R, 12 + 4 * S)``."""
    rows, samples, statistics = per_sample.shape
    sides = [aggregates.reshape(rows, N_AGGREGATES), per_sample.reshape(rows, samples * statistics)]
    return np.concatenate(sides, axis=1, dtype=np.float32)


def encode_columns(
    layout: bytes,
    numbers: Sequence[int],
    places: Sequence[int],
    statistics: Sequence[NDArray[np.float64]],
    batches: Sequence[NDArray[np.float32]],
) -> bytes:
    """A ``columns`` block: for each row two frames, ``(11, steps)`` float64 and ``(12 + 4 * S, steps)`` float32."""
    by_row = np.stack(statistics, axis=-1)
    batch_by_row = np.stack(batches, axis=-1)
    frames = [frame for row in range(len(by_row)) for frame in _row_frames(by_row[row], batch_by_row[row])]
    lengths = np.array([len(frame) for frame in frames], np.uint32)
    index = FrameList()
    index.add("numbers", np.array(numbers, np.int64))
    index.add("lengths", lengths)
    header = {
        "layout": layout,
        "rows": len(by_row),
        "steps": len(numbers),
        "batch": batch_by_row.shape[1],
        "places": list(places),
        "arrays": index.entries,
    }
    return encode_block("columns", header, [*index.frames, *frames])


def _row_frames(statistics: NDArray[np.float64], batch: NDArray[np.float32]) -> tuple[bytes, bytes]:
    return pack_array(statistics)[0], pack_array(batch)[0]


class Chunk:
    """One ``columns`` block, read on demand.

    Attributes:
        layout: the digest of the layout of its steps.
        rows: how many rows that has.
        numbers: ``(n,)``, the steps.
        places: ``(n,)``, the offsets of their blocks in the steps' file; None if it does not say.

    Raises:
        DamagedError: its header makes no sense, or its step numbers cannot be read.
    """

    def __init__(self, file: BlockFile, place: BlockPlace, header: dict[str, Any]) -> None:
        self._file = file
        self._place = place
        self._offsets: NDArray[np.int64] | None = None
        with damaged_unless("a columns block"):
            self.layout = codec.digest_from_plain(header["layout"])
            self.rows, self._steps, self._batch = (int(header[name]) for name in ("rows", "steps", "batch"))
            arrays = array_entries(header["arrays"], place.payload_length)
            self._lengths = arrays["lengths"]
            self.numbers: NDArray[np.int64] = self._array(arrays["numbers"])
            self.places = np.array(header["places"], np.int64) if "places" in header else None
            if self.places is not None and self.places.shape != self.numbers.shape:
                raise ValueError("other places than steps")
            if self.numbers.shape != (self._steps,) or self._lengths.shape != (2 * self.rows,) or self.rows < 1:
                raise ValueError("other numbers of steps or rows than promised")

    def is_of(self, indices: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether these of its steps are those at these offsets of the steps' file; no, if it does not say."""
        if self.places is None:
            return np.zeros(len(indices), bool)
        found: NDArray[np.bool_] = self.places[indices] == offsets
        return found

    def statistics(self, row: int) -> NDArray[np.float64]:
        """``(11, steps)`` of one row."""
        return self._frame(2 * row, "<f8", (N_STATISTICS, self._steps))

    def batch(self, row: int) -> NDArray[np.float32]:
        """``(12 + 4 * S, steps)`` of one row."""
        return self._frame(2 * row + 1, "<f4", (self._batch, self._steps))

    def _array(self, entry: ArrayEntry) -> NDArray[Any]:
        frame = self._file.read(self._place.payload_offset + entry.offset, entry.length)
        return unpack_array(frame, entry.dtype, entry.shape, entry.shuffled)

    def _frame(self, index: int, dtype: str, shape: tuple[int, int]) -> NDArray[Any]:
        with damaged_unless("a columns block"):
            if self._offsets is None:
                lengths = self._array(self._lengths).astype(np.int64)
                first = self._lengths.offset + self._lengths.length
                self._offsets = first + np.concatenate([[0], np.cumsum(lengths)])
            start, end = int(self._offsets[index]), int(self._offsets[index + 1])
            if not 0 <= start <= end <= self._place.payload_length:
                raise ValueError("a frame reaches out of its block")
            frame = self._file.read(self._place.payload_offset + start, end - start)
            return unpack_array(frame, dtype, shape, shape[0] * shape[1] > 1)
