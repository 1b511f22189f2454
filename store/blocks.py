"""Blocks: the unit that files are made of. See FORMAT.md, "Blocks".

A block is a prefix, a msgpack header, and a payload of zstandard frames. The prefix and the header share a checksum;
every frame has its own, so that one array can be read, and trusted, without reading the rest.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
import zstandard
from numpy.typing import NDArray

from stepscope.store.errors import DamagedError

MARKER = b"\xf5SsB"
_PREFIX = struct.Struct("<4sBxHIQ")  # marker, kind, version, header's length, payload's length
_CHECKSUM = struct.Struct("<I")
PREFIX_SIZE = _PREFIX.size + _CHECKSUM.size
BLOCK_VERSION = 1

MAX_HEADER = 64 << 20
MAX_PAYLOAD = 1 << 40
MAX_ARRAY = 4 << 30

KINDS = {
    "trial": 1,
    "network": 2,
    "scalars": 3,
    "note": 4,
    "message": 5,
    "end": 6,
    "layout": 16,
    "graph": 17,
    "step": 32,
    "detail": 33,
    "columns": 34,
}
_KIND_NAMES = {number: name for name, number in KINDS.items()}

_LEVEL = 3
_compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True, write_content_size=True)


@dataclass(frozen=True)
class BlockPlace:
    """A complete block in a file: its kind, where it starts and where its header and payload lie."""

    kind: str
    offset: int
    header_length: int
    payload_length: int

    @property
    def header_offset(self) -> int:
        return self.offset + PREFIX_SIZE

    @property
    def payload_offset(self) -> int:
        return self.header_offset + self.header_length

    @property
    def end(self) -> int:
        return self.payload_offset + self.payload_length


def encode_block(kind: str, header: Mapping[str, Any], frames: Sequence[bytes] = ()) -> bytes:
    """A whole block as bytes. ``header`` holds plain msgpack values; see ``FrameList`` for how it lists frames."""
    packed = msgpack.packb(dict(header), use_bin_type=True)
    prefix = _PREFIX.pack(MARKER, KINDS[kind], BLOCK_VERSION, len(packed), sum(map(len, frames)))
    checksum = _CHECKSUM.pack(zlib.crc32(packed, zlib.crc32(prefix)))
    return b"".join((prefix, checksum, packed, *frames))


def read_prefix(data: bytes | memoryview, offset: int) -> BlockPlace | None:
    """The block whose prefix is the given bytes; None if they are no prefix."""
    if len(data) < PREFIX_SIZE:
        return None
    marker, kind, version, header_length, payload_length = _PREFIX.unpack_from(data)
    sane = header_length <= MAX_HEADER and payload_length <= MAX_PAYLOAD and version == BLOCK_VERSION
    if marker != MARKER or not sane or kind not in _KIND_NAMES:
        return None
    return BlockPlace(_KIND_NAMES[kind], offset, header_length, payload_length)


def read_header(data: bytes | memoryview) -> dict[str, Any] | None:
    """The header out of prefix and header bytes; None if the checksum does not fit."""
    (checksum,) = _CHECKSUM.unpack_from(data, _PREFIX.size)
    packed = bytes(data[PREFIX_SIZE:])
    if zlib.crc32(packed, zlib.crc32(data[: _PREFIX.size])) != checksum:
        return None
    header = msgpack.unpackb(packed, raw=False, strict_map_key=False)
    return header if isinstance(header, dict) else None


class FrameList:
    """Frames of a payload while it is being written, and the entries that a header lists them by.

    An entry is ``[name, dtype, shape, offset, stored bytes, shuffled]``; the offset counts from the payload's start.
    """

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.entries: list[list[Any]] = []
        self._size = 0

    def add(self, name: str, values: NDArray[Any]) -> None:
        """Append an array as a frame."""
        frame, shuffled = pack_array(values)
        dtype = values.dtype.newbyteorder("<").str
        self.entries.append([name, dtype, list(values.shape), self._size, len(frame), shuffled])
        self.frames.append(frame)
        self._size += len(frame)


def pack_array(values: NDArray[Any]) -> tuple[bytes, bool]:
    """An array as a zstandard frame; bytes of wide numbers are shuffled first: equal ones become neighbours."""
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    raw = little.tobytes()
    width = little.dtype.itemsize
    shuffled = width > 1 and little.size > 1
    if shuffled:
        raw = np.frombuffer(raw, np.uint8).reshape(-1, width).T.tobytes()
    return _compressor.compress(raw), shuffled


def unpack_array(frame: bytes | memoryview, dtype: str, shape: Sequence[int], shuffled: bool) -> NDArray[Any]:
    """The array in a frame.

    Raises:
        DamagedError: the frame's checksum or size does not fit what the header promises.
    """
    kind = np.dtype(dtype)
    if kind.hasobject or kind.kind not in "fiub":
        raise DamagedError(f"an array of type {dtype!r}, which no recording has")
    count = int(np.prod(shape, dtype=np.int64)) if len(shape) else 1
    size = count * kind.itemsize
    raw = decompress(frame, size)
    if shuffled:
        raw = np.frombuffer(raw, np.uint8).reshape(kind.itemsize, -1).T.tobytes()
    return np.frombuffer(raw, kind).reshape(tuple(shape))


def compress(raw: bytes) -> bytes:
    """Bytes as a zstandard frame with a checksum."""
    return _compressor.compress(raw)


def decompress(frame: bytes | memoryview, size: int | None = None) -> bytes:
    """The bytes in a frame; of exactly ``size``, if given. Nothing larger than ``MAX_ARRAY`` is ever made."""
    try:
        promised = zstandard.frame_content_size(bytes(frame[:32]))
        if promised < 0 or promised > MAX_ARRAY or (size is not None and promised != size):
            raise DamagedError(f"a frame promises {promised} bytes, expected {size}")
        raw = zstandard.ZstdDecompressor().decompress(bytes(frame), max_output_size=promised)
    except zstandard.ZstdError as error:
        raise DamagedError(f"a frame cannot be decompressed ({error})") from error
    if len(raw) != promised:
        raise DamagedError(f"a frame holds {len(raw)} bytes, promised {promised}")
    return bytes(raw)
