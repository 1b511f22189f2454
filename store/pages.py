"""Pages: pieces of consecutive rows of a stream, compressed together. See FORMAT.md, "Detail"."""

from __future__ import annotations

from bisect import bisect_right
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


class Page(NamedTuple):
    """A page as it is stored.

    Attributes:
        stream: which it belongs to; end: the row at which it ends.
        form: how its bytes lie.
        lengths: of its frames, if it has one for each byte of its numbers.
        stored: its frame, or frames.
    """

    stream: int
    end: int
    form: int
    lengths: tuple[int, ...]
    stored: bytes


def pack_pages(
    stream: int, pieces: Sequence[Piece], sizes: NDArray[np.int64], widths: NDArray[np.int64]
) -> Iterator[Page]:
    """The pages of a stream: out of one piece a row, with its size and the width of its numbers."""
    if sizes.any():
        for start, end in _bounds(sizes, widths):
            yield _pack(stream, end, b"".join(pieces[start:end]), int(widths[start]))


def _pack(stream: int, end: int, raw: bytes, width: int) -> Page:
    if width == 1:
        return Page(stream, end, AS_IT_IS, (), compress(raw))
    if len(raw) < _WORTH_PLANES:
        return Page(stream, end, SHUFFLED, (), compress(shuffle(raw, width)))
    frames = [compress(plane) for plane in planes(raw, width)]
    return Page(stream, end, width, tuple(map(len, frames)), b"".join(frames))


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


class _Rows(NamedTuple):
    """A page that was read: rows ``first`` to ``end - 1``."""

    first: int
    end: int
    raw: bytes


class PageFile:
    """The pages of a block as a reader sees them; those that were read last are kept.

    Args:
        file: where the block is.
        start: where its first page starts; end: where the block ends.
        entries: ``(pages, 4)``: stream, end, stored length and form of each.
        frame_lengths: the lengths of the frames of those that have several, one behind the other.
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
        self._kept: dict[int, _Rows] = {}
        self._streams: dict[int, tuple[list[int], list[int]]] = {}

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

    def stored(self) -> Iterator[Page]:
        """All pages as they are stored, to be written somewhere else.

        Raises:
            DamagedError, ValueError: one cannot be read.
        """
        for index, (stream, end, _, form) in enumerate(self._entries.tolist()):
            yield Page(stream, end, form, self._lengths(index), self._stored(index))

    def _page(self, stream: int, row: int, ends: Sequence[int], width: int) -> _Rows:
        own, row_ends = self._of_stream(stream)
        place = bisect_right(row_ends, row)
        index = own[place]
        kept = self._kept.get(index)
        if kept is None:
            first, end = row_ends[place - 1] if place else 0, row_ends[place]
            kept = _Rows(first, end, self._read(index, ends[end] - ends[first], width))
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            self._kept[index] = kept
        return kept

    def _of_stream(self, stream: int) -> tuple[list[int], list[int]]:
        """Which pages are of a stream, and the rows at which they end."""
        if stream not in self._streams:
            own = np.flatnonzero(self._entries[:, STREAM] == stream)
            self._streams[stream] = own.tolist(), self._entries[own, END_ROW].tolist()
        return self._streams[stream]

    def _read(self, index: int, size: int, width: int) -> bytes:
        stored, form = self._stored(index), int(self._entries[index, FORM])
        if form == AS_IT_IS:
            return decompress(stored, size)
        if form == SHUFFLED:
            return unshuffle(decompress(stored, size), width)
        if form != width or size % width:
            raise ValueError(f"a page of numbers of {width} bytes has {form} frames")
        return join_planes(stored, self._lengths(index), size // width)

    def _stored(self, index: int) -> bytes:
        start, length = int(self._starts[index]), int(self._entries[index, LENGTH])
        if length < 0 or start + length > self._end:
            raise ValueError("a page reaches out of its block")
        return self._file.read(start, length)

    def _lengths(self, index: int) -> tuple[int, ...]:
        first, form = int(self._first_frames[index]), int(self._entries[index, FORM])
        return tuple(self._frame_lengths[first : first + form].tolist()) if form > SHUFFLED else ()
