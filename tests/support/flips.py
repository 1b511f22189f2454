"""Damage for recordings."""

from __future__ import annotations

import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import msgpack

from stepscope.store.block_file import BlockFile
from stepscope.store.blocks import BlockPlace
from stepscope.store.files import file_path


def copy(trial: Path, folder: Path) -> Path:
    """A copy of a trial, to be damaged."""
    return Path(shutil.copytree(trial, folder / trial.name))


def flip(trial: Path, name: str, offset: int, bits: int = 0x10) -> None:
    """Change one byte of a file; a negative offset counts from its end."""
    path = file_path(trial, name)
    data = bytearray(path.read_bytes())
    data[offset] ^= bits
    path.write_bytes(data)


def cut(trial: Path, name: str, size: int) -> None:
    """Truncate a file."""
    with open(file_path(trial, name), "r+b") as file:
        file.truncate(size)


def forge(trial: Path, place: BlockPlace, header: dict[str, Any], payload_length: int) -> None:
    """Let a detail say something else, with a checksum that fits; no byte of the file moves."""
    path = file_path(trial, "detail")
    data = bytearray(path.read_bytes())
    packed = msgpack.packb(header)
    prefix = bytes(data[place.offset : place.offset + 8]) + struct.pack("<IQ", len(packed), payload_length)
    forged = prefix + struct.pack("<I", zlib.crc32(packed, zlib.crc32(prefix))) + packed
    data[place.offset : place.offset + len(forged)] = forged
    path.write_bytes(data)


def blocks(trial: Path, name: str) -> list[BlockPlace]:
    """The blocks of an undamaged file."""
    return [place for place, _ in BlockFile(file_path(trial, name)).new_blocks()]
