"""Frames: arrays as compressed bytes with a checksum. See FORMAT.md, "Frames"."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import zstandard
from numpy.typing import NDArray

from stepscope.store.errors import DamagedError, StoreError

MAX_ARRAY = 1 << 30
"""Bytes of the largest array that is written, and that a reader makes room for."""

_LEVEL = 3
_of_thread = threading.local()
"""Holds each thread's own compressor: one that two recorders' writers use at once crashes the process."""


class ArrayEntry(NamedTuple):
    """How a header lists an array of its payload; ``offset`` counts from the payload's start."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int
    shuffled: bool


def array_entries(plain: Sequence[Sequence[Any]], payload_length: int) -> dict[str, ArrayEntry]:
    """The arrays that a header lists, by name.

    Raises:
        DamagedError: an array reaches out of the payload, or is larger than any array is.
    """
    entries = {}
    for name, dtype, shape, offset, length, shuffled in (row[:6] for row in plain):
        entry = ArrayEntry(str(name), str(dtype), tuple(map(int, shape)), int(offset), int(length), bool(shuffled))
        if not 0 <= entry.offset <= entry.offset + entry.length <= payload_length:
            raise DamagedError(f"the array {entry.name!r} reaches out of its block")
        entries[entry.name] = entry
    return entries


class FrameList:
    """Frames of a payload while it is being written, and the entries that a header lists them by."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.entries: list[list[Any]] = []
        self._size = 0

    def add(self, name: str, values: NDArray[Any], *, shuffled: bool = True) -> None:
        """Append an array as a frame."""
        frame, shuffled = pack_array(values, shuffled=shuffled)
        dtype = values.dtype.newbyteorder("<").str
        self.entries.append([name, dtype, list(values.shape), self._size, len(frame), shuffled])
        self.frames.append(frame)
        self._size += len(frame)


def pack_array(values: NDArray[Any], *, shuffled: bool = True) -> tuple[bytes, bool]:
    """An array as a frame, and whether its bytes were shuffled: those of equal weight put side by side."""
    _check_size(values.nbytes)
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    width = little.dtype.itemsize
    shuffled = shuffled and width > 1 and little.size > 1
    raw = little.tobytes()
    return compress(shuffle(raw, width) if shuffled else raw), shuffled


def unpack_array(frame: bytes | memoryview, dtype: str, shape: Sequence[int], shuffled: bool) -> NDArray[Any]:
    """The array in a frame.

    Raises:
        DamagedError: the frame's checksum or size does not fit what the header promises.
    """
    kind = _dtype(dtype)
    if any(size < 0 for size in shape):
        raise DamagedError(f"an array of shape {list(shape)}")
    raw = decompress(frame, math.prod(shape) * kind.itemsize)
    if shuffled:
        raw = unshuffle(raw, kind.itemsize)
    return np.frombuffer(raw, kind).reshape(tuple(shape))


def _dtype(name: str) -> np.dtype[Any]:
    try:
        kind = np.dtype(name)
    except (TypeError, ValueError, SyntaxError) as error:
        raise DamagedError(f"an array of type {name!r}") from error
    if kind.hasobject or kind.kind not in "fiub" or kind.shape:
        raise DamagedError(f"an array of type {name!r}, which no recording has")
    return kind


def shuffle(raw: bytes, width: int) -> bytes:
    """The first bytes of all numbers, then the second, ...: equal ones become neighbours and compress."""
    return np.frombuffer(raw, np.uint8).reshape(-1, width).T.tobytes()


def unshuffle(raw: bytes, width: int) -> bytes:
    """The numbers out of shuffled bytes."""
    return np.frombuffer(raw, np.uint8).reshape(width, -1).T.tobytes()


def planes(raw: bytes, width: int) -> list[bytes]:
    """The first bytes of all numbers, the second, ...: as frames of their own, they compress better than as one."""
    return [plane.tobytes() for plane in np.frombuffer(raw, np.uint8).reshape(-1, width).T]


def join_planes(stored: bytes, lengths: Sequence[int], count: int) -> bytes:
    """The bytes of ``count`` numbers out of one frame for each of their bytes, which lie one behind the other.

    Raises:
        DamagedError: a frame is damaged, or holds another number of bytes.
        ValueError: the frames do not fill what is stored.
    """
    if sum(lengths) != len(stored) or any(length < 0 for length in lengths):
        raise ValueError("the frames of a page have other lengths than the page")
    joined = np.empty((count, len(lengths)), np.uint8)
    start = 0
    for place, length in enumerate(lengths):
        joined[:, place] = np.frombuffer(decompress(stored[start : start + length], count), np.uint8)
        start += length
    return joined.tobytes()


def compress(raw: bytes) -> bytes:
    """Bytes as a frame.

    Raises:
        StoreError: they are more than a reader would accept.
    """
    _check_size(len(raw))
    return _compressor().compress(raw)


def _compressor() -> zstandard.ZstdCompressor:
    try:
        compressor: zstandard.ZstdCompressor = _of_thread.compressor
    except AttributeError:
        compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True, write_content_size=True)
        _of_thread.compressor = compressor
    return compressor


def _check_size(size: int) -> None:
    if size > MAX_ARRAY:
        raise StoreError(f"an array of {size} bytes cannot be written; at most {MAX_ARRAY} can")


def decompress(frame: bytes | memoryview, size: int | None = None) -> bytes:
    """The bytes in a frame; of exactly ``size``, if given. Nothing larger than ``MAX_ARRAY`` is ever made.

    Raises:
        DamagedError: the frame is damaged, or holds another number of bytes.
    """
    try:
        promised = zstandard.frame_content_size(bytes(frame[:32]))
        if promised < 0 or promised > MAX_ARRAY or (size is not None and promised != size):
            raise DamagedError(f"a frame promises {promised} bytes, expected {size if size is not None else 'fewer'}")
        raw = zstandard.ZstdDecompressor().decompress(bytes(frame), max_output_size=promised)
    except (zstandard.ZstdError, MemoryError) as error:
        raise DamagedError(f"a frame cannot be decompressed ({error})") from error
    if len(raw) != promised:
        raise DamagedError(f"a frame holds {len(raw)} bytes, promised {promised}")
    return bytes(raw)
