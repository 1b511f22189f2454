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

from stepscope.store.errors import StoreError

MARKER = b"\xf5SsB"
_PREFIX = struct.Struct("<4sBxHIQ")  # marker, kind, version, header's length, payload's length
_CHECKSUM = struct.Struct("<I")
PREFIX_SIZE = _PREFIX.size + _CHECKSUM.size
BLOCK_VERSION = 1

MAX_HEADER = 32 << 20
MAX_PAYLOAD = 1 << 40

KINDS = {
    "trial": 1,
    "network": 2,
    "scalars": 3,
    "note": 4,
    "message": 5,
    "end": 6,
    "resumed": 7,
    "restart": 8,
    "layout": 16,
    "graph": 17,
    "step": 32,
    "detail": 33,
    "columns": 34,
}
UNKNOWN_KIND = "unknown"
_GAP = 255
_EMPTY_HEADER = b"\x80"
_KIND_NAMES = {number: name for name, number in KINDS.items()}


@dataclass(frozen=True)
class BlockPlace:
    """A block in a file: its kind, where it starts, and how long its header and payload are."""

    kind: str
    offset: int
    header_length: int
    payload_length: int

    @property
    def payload_offset(self) -> int:
        return self.offset + PREFIX_SIZE + self.header_length

    @property
    def end(self) -> int:
        return self.payload_offset + self.payload_length


def encode_block(kind: str, header: Mapping[str, Any], frames: Sequence[bytes] = ()) -> bytes:
    """A whole block as bytes. ``header`` holds plain msgpack values.

    Raises:
        StoreError: the header holds what msgpack cannot express, or is too long for any reader.
    """
    packed = _packed_header(kind, header)
    return b"".join((_block(KINDS[kind], packed, sum(map(len, frames))), *frames))


def gap_block(size: int) -> bytes | None:
    """A block of exactly this many bytes with nothing in it, in the place of a damaged one; None if it is too small."""
    payload = size - PREFIX_SIZE - len(_EMPTY_HEADER)
    if payload < 0:
        return None
    return _block(_GAP, _EMPTY_HEADER, payload) + bytes(payload)


def lengthened(block: bytes, more: int) -> bytes:
    """A block whose payload ends with this many bytes more, which nothing refers to."""
    return sized(block, len(block) + more) + bytes(more)


def sized(block: bytes, size: int) -> bytes:
    """A block, or its first bytes, saying that all of it has this many bytes."""
    _, kind, version, header_length, _ = _PREFIX.unpack_from(block)
    start = PREFIX_SIZE + header_length
    return _block(kind, block[PREFIX_SIZE:start], size - start, version) + block[start:]


def _block(kind: int, header: bytes, payload: int, version: int = BLOCK_VERSION) -> bytes:
    prefix = _PREFIX.pack(MARKER, kind, version, len(header), payload)
    return prefix + _CHECKSUM.pack(zlib.crc32(header, zlib.crc32(prefix))) + header


def _packed_header(kind: str, header: Mapping[str, Any]) -> bytes:
    try:
        packed = bytes(msgpack.packb(dict(header), use_bin_type=True))
    except (TypeError, ValueError, OverflowError) as error:
        raise StoreError(
            f"a {kind} cannot be written: {error}; give None, truth values, numbers, texts, lists and dicts of these"
        ) from error
    if len(packed) > MAX_HEADER:
        raise StoreError(f"a {kind} of {len(packed)} bytes cannot be written; at most {MAX_HEADER} can")
    return packed


def read_prefix(data: bytes | memoryview, offset: int) -> BlockPlace | None:
    """The block whose prefix is the given bytes; None if they are no prefix."""
    if len(data) < PREFIX_SIZE:
        return None
    marker, kind, version, header_length, payload_length = _PREFIX.unpack_from(data)
    if marker != MARKER or version < BLOCK_VERSION or header_length > MAX_HEADER or payload_length > MAX_PAYLOAD:
        return None
    # A kind (or version) that this program does not know is passed over; its length says where the next block is.
    name = _KIND_NAMES.get(kind, UNKNOWN_KIND) if version == BLOCK_VERSION else UNKNOWN_KIND
    return BlockPlace(name, offset, header_length, payload_length)


def checksum_fits(data: bytes | memoryview) -> bool:
    """Whether prefix and header, given as their bytes, are as they were written."""
    checksum: int = _CHECKSUM.unpack_from(data, _PREFIX.size)[0]
    return zlib.crc32(data[PREFIX_SIZE:], zlib.crc32(data[: _PREFIX.size])) == checksum


def read_header(data: bytes | memoryview) -> dict[str, Any] | None:
    """The header out of prefix and header bytes; None if it is damaged."""
    if not checksum_fits(data):
        return None
    try:
        header = msgpack.unpackb(bytes(data[PREFIX_SIZE:]), raw=False, strict_map_key=False)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException):
        return None
    return header if isinstance(header, dict) else None
