"""Random damage for recordings: bytes, and headers that are whole but lie."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import msgpack

Change = Callable[[bytearray, random.Random], None]

LIES = (
    None, True, -1, 0, 1, 7, 2**31, 2**40, 10 * 2**30, 2**62, 2**63 - 1, 2**64 - 1, -(2**63), 0.5, float("nan"),
    float("inf"), "", "x", "|O8", "<f8", "<U1000000000", "f8,f8", b"", b"\xff" * 16, [], [[]], [-1], {}, {"a": 1},
    "../../etc/passwd", [2**40, 2**40], ["statistics", "<f8", [2**31, 2**31], 0, 10, True],
)  # fmt: skip


def mutate(data: bytes, choose: random.Random) -> bytes:
    """The bytes of a file with one to three random changes."""
    changed = bytearray(data)
    for _ in range(choose.choice((1, 1, 1, 2, 3))):
        choose.choice(CHANGES)(changed, choose)
    return bytes(changed)


def _flip(data: bytearray, choose: random.Random) -> None:
    if data:
        data[choose.randrange(len(data))] ^= 1 << choose.randrange(8)


def _overwrite(data: bytearray, choose: random.Random) -> None:
    start, size = choose.randrange(len(data) + 1), choose.choice((1, 4, 16, 300))
    data[start : start + size] = choose.choice((b"\0" * size, b"\xff" * size, choose.randbytes(size)))


def _insert(data: bytearray, choose: random.Random) -> None:
    start = choose.randrange(len(data) + 1)
    data[start:start] = choose.randbytes(choose.choice((1, 8, 1000)))


def _delete(data: bytearray, choose: random.Random) -> None:
    start = choose.randrange(len(data) + 1)
    del data[start : start + choose.choice((1, 8, 1000))]


def _truncate(data: bytearray, choose: random.Random) -> None:
    del data[choose.randrange(len(data) + 1) :]


def _move(data: bytearray, choose: random.Random) -> None:
    """A piece of the file once more, somewhere else."""
    start, to = choose.randrange(len(data) + 1), choose.randrange(len(data) + 1)
    data[to:to] = data[start : start + choose.choice((30, 500, 5000))]


def _lie(data: bytearray, choose: random.Random) -> None:
    """A header says something else, and its checksum fits."""
    starts = [at for at in _markers(data) if at + 24 <= len(data)]
    if not starts:
        return
    at = choose.choice(starts)
    (length,) = struct.unpack_from("<I", data, at + 8)
    try:
        header = msgpack.unpackb(bytes(data[at + 24 : at + 24 + length]), strict_map_key=False)
        packed = msgpack.packb(with_a_lie(header, choose))
    except (ValueError, TypeError, OverflowError):
        return
    prefix = data[at : at + 8] + struct.pack("<I", len(packed)) + data[at + 12 : at + 20]
    if choose.random() < 0.2:
        prefix[12:20] = struct.pack("<Q", choose.choice((0, 1, 2**33, 2**40, 2**41, 2**64 - 1)))
    checksum = struct.pack("<I", zlib.crc32(bytes(prefix) + packed))
    data[at : at + 24 + length] = prefix + checksum + packed


def with_a_lie(value: Any, choose: random.Random) -> Any:
    """The value with one of its parts replaced, removed or repeated."""
    if choose.random() < 0.15 or not isinstance(value, dict | list) or not value:
        return choose.choice(LIES)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = choose.choice(keys)
    if choose.random() < 0.1:
        del value[key]
    else:
        value[key] = with_a_lie(value[key], choose)
    return value


def _markers(data: bytearray) -> list[int]:
    found, at = [], data.find(b"\xf5SsB")
    while at >= 0:
        found.append(at)
        at = data.find(b"\xf5SsB", at + 1)
    return found


CHANGES: tuple[Change, ...] = (_flip, _flip, _overwrite, _insert, _delete, _truncate, _move, _lie, _lie, _lie, _lie)
