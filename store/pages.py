"""Pages: pieces of consecutive rows of a stream, compressed together. See FORMAT.md, "Detail"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stepscope.store.block_file import BlockFile
from stepscope.store.frames import compress, decompress, join_planes, planes, shuffle, unshuffle

PAGE_BYTES = 1 << 18
"""A page ends before the row that would make it larger than this; it has at least one row."""

_WORTH_PLANES = 1 << 11
"""Smaller pages are one frame: each frame has some 14 bytes of its own."""

_KEPT = 12

AS_IT_IS, SHUFFLED = 0, 1
"""How the bytes of a page lie; any other number: in as many frames, one for each byte of its numbers."""

STREAM, END_ROW, LENGTH, FORM = range(4)

Piece = bytes | memoryview


class PageList:
    """Pages while they are being written."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, int, int, int]] = []
        self.frame_lengths: list[int] = []
        self.frames: list[bytes] = []

    def add_stream(
        self, stream: int, pieces: Sequence[Piece], sizes: NDArray[np.int64], widths: NDArray[np.int64]
    ) -> None:
        """Append the pages of a stream: one piece a row, with its size and the width of its numbers."""
        if not sizes.any():
            return
        for start, end in _bounds(sizes, widths):
            self._add(stream, end, b"".join(pieces[start:end]), int(widths[start]))

    def _add(self, stream: int, end: int, raw: bytes, width: int) -> None:
        if width > 1 and len(raw) >= _WORTH_PLANES:
            frames, form = [compress(plane) for plane in planes(raw, width)], width
            self.frame_lengths += map(len, frames)
        elif width > 1:
            frames, form = [compress(shuffle(raw, width))], SHUFFLED
        else:
            frames, form = [compress(raw)], AS_IT_IS
        self.entries.append((stream, end, sum(map(len, frames)), form))
        self.frames += frames


def _bounds(sizes: NDArray[np.int64], widths: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
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


class _Page(NamedTuple):
    """A page that was read: rows ``first`` to ``end - 1``."""

    first: int
    end: int
    raw: bytes


class PageFile:
    """The pages of a block as a reader sees them; those that were read last are kept.

    Args:
        file: where the block is.
        start: where its first page starts; end: where the block ends.
        entries: ``(pages, 4)``, as ``PageList.entries``.
        frame_lengths: as ``PageList.frame_lengths``.
    """

    def __init__(
        self, file: BlockFile, start: int, end: int, entries: NDArray[np.int64], frame_lengths: NDArray[np.int64]
    ) -> None:
        self._file = file
        self._end = end
        self._entries = entries
        self._starts = start + np.cumsum(entries[:, LENGTH]) - entries[:, LENGTH]
        self._frame_lengths = frame_lengths
        has_planes = np.where(entries[:, FORM] > SHUFFLED, entries[:, FORM], 0)
        self._first_frames = np.cumsum(has_planes) - has_planes
        self._kept: dict[int, _Page] = {}

    def piece(self, stream: int, row: int, ends: Sequence[int], width: int) -> bytes:
        """The bytes of a row in a stream, in which row i lies from ``ends[i]`` to ``ends[i + 1]``.

        Raises:
            DamagedError, ValueError, IndexError: there is no such page, or it cannot be read.
        """
        if ends[row] == ends[row + 1]:
            return b""
        page = self._page(stream, row, ends, width)
        before = ends[page.first]
        return page.raw[ends[row] - before : ends[row + 1] - before]

    def _page(self, stream: int, row: int, ends: Sequence[int], width: int) -> _Page:
        own = np.flatnonzero(self._entries[:, STREAM] == stream)
        row_ends = self._entries[own, END_ROW]
        place = int(np.searchsorted(row_ends, row, side="right"))
        index = int(own[place])
        kept = self._kept.get(index)
        if kept is None:
            first, end = int(row_ends[place - 1]) if place else 0, int(row_ends[place])
            kept = _Page(first, end, self._read(index, ends[end] - ends[first], width))
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            self._kept[index] = kept
        return kept

    def _read(self, index: int, size: int, width: int) -> bytes:
        start = int(self._starts[index])
        length, form = int(self._entries[index, LENGTH]), int(self._entries[index, FORM])
        if length < 0 or start + length > self._end:
            raise ValueError("a page reaches out of its block")
        stored = self._file.read(start, length)
        if form == AS_IT_IS:
            return decompress(stored, size)
        if form == SHUFFLED:
            return unshuffle(decompress(stored, size), width)
        if form != width or size % width:
            raise ValueError(f"a page of numbers of {width} bytes has {form} planes")
        first = int(self._first_frames[index])
        return join_planes(stored, self._frame_lengths[first : first + width].tolist(), size // width)
