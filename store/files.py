"""What all files of a trial have in common: their names and their first bytes. See FORMAT.md, "Files"."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Literal

from stepscope.store.errors import NotARecordingError

MAGIC = b"STEPSCOPE"
FORMAT_VERSION = 2
FILE_HEADER_SIZE = 16
FILE_NAMES = ("journal", "catalog", "steps", "detail", "columns")
SUFFIX = ".stepscope"

_VERSION_AT = len(MAGIC)
_CHECKSUM_AT = 12


def file_path(trial: Path, name: str) -> Path:
    """Where a trial keeps one of its files."""
    return trial / f"{name}{SUFFIX}"


def file_header(version: int = FORMAT_VERSION) -> bytes:
    """The first bytes of every file: magic, format version, a checksum of both."""
    start = (MAGIC + version.to_bytes(2, "little")).ljust(_CHECKSUM_AT, b"\0")
    return start + zlib.crc32(start).to_bytes(4, "little")


def check_file_header(path: Path, header: bytes) -> Literal["fine", "damaged", "foreign"]:
    """Whether the first bytes of a file are those of a recording that can be read.

    Raises:
        NotARecordingError: they are those of a recording in a newer format.
    """
    intact = zlib.crc32(header[:_CHECKSUM_AT]) == int.from_bytes(header[_CHECKSUM_AT:], "little")
    if not header.startswith(MAGIC):
        return "foreign"
    version = int.from_bytes(header[_VERSION_AT : _VERSION_AT + 2], "little")
    if intact and version > FORMAT_VERSION:
        raise NotARecordingError(
            f"{path} has format version {version}, this program reads up to {FORMAT_VERSION}; install a newer stepscope"
        )
    return "fine" if intact else "damaged"
