"""The files of a trial: appended to by one writer, scanned and read by any number of readers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stepscope.store.blocks import MARKER, PREFIX_SIZE, BlockPlace, read_header, read_prefix
from stepscope.store.errors import DamagedError, NotARecordingError

MAGIC = b"STEPSCOPE"
FORMAT_VERSION = 1
FILE_HEADER_SIZE = 16
FILE_NAMES = ("journal", "catalog", "steps", "detail", "columns")
SUFFIX = ".stepscope"


def file_header() -> bytes:
    """The first bytes of every file: magic, format version, padding."""
    return (MAGIC + FORMAT_VERSION.to_bytes(2, "little")).ljust(FILE_HEADER_SIZE, b"\0")


def file_path(trial: Path, name: str) -> Path:
    """Where a trial keeps one of its files."""
    return trial / f"{name}{SUFFIX}"


class AppendFile:
    """A file that only grows; each block is written with one call, so a reader sees it whole or torn at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - lives as long as the writer
        self.size = self._file.tell()
        if self.size == 0:
            self._write(file_header())

    def append(self, block: bytes) -> int:
        """Append a block; returns the offset at which it starts."""
        offset = self.size
        self._write(block)
        return offset

    def close(self) -> None:
        self._file.close()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        written = 0
        try:
            while written < len(view):
                written += self._file.write(view[written:]) or 0
        except OSError:
            # A half-written block would hide what is appended after it.
            self._file.truncate(self.size)
            raise
        self.size += len(view)


class BlockFile:
    """A file as a reader sees it: knows the complete blocks so far, and finds new ones when asked again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []
        self._scanned = 0
        self._descriptor: int | None = None

    @property
    def name(self) -> str:
        return self.path.name

    def size(self) -> int:
        """The file's size now; 0 if it does not exist."""
        try:
            return os.stat(self.path).st_size
        except FileNotFoundError:
            return 0

    def new_blocks(self) -> Iterator[tuple[BlockPlace, dict[str, Any]]]:
        """The blocks that were completed since the last call, with their headers.

        A block whose prefix or header is damaged is skipped: the search goes on at the next marker.
        """
        size = self.size()
        if size < FILE_HEADER_SIZE or size <= self._scanned:
            return
        if self._scanned == 0:
            self._check_file_header()
            self._scanned = FILE_HEADER_SIZE
        while self._scanned + PREFIX_SIZE <= size:
            place = read_prefix(self.read(self._scanned, PREFIX_SIZE), self._scanned)
            if place is None:
                if not self._skip_damage(size):
                    return
                continue
            if place.end > size:
                # Being written right now, or torn; unless a later block proves that the lengths are damaged.
                if not self._skip_damage(size, torn=True):
                    return
                continue
            header = read_header(self.read(place.offset, PREFIX_SIZE + place.header_length))
            if header is None:
                if not self._skip_damage(size):
                    return
                continue
            self._scanned = place.end
            yield place, header

    def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes of the file."""
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        data = os.pread(self._descriptor, length, offset)
        if len(data) != length:
            raise DamagedError(f"{self.name} ends at byte {offset + len(data)}, expected {offset + length}")
        return data

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self.close()

    def _check_file_header(self) -> None:
        header = self.read(0, FILE_HEADER_SIZE)
        if not header.startswith(MAGIC):
            raise NotARecordingError(f"{self.path} is not a file of a Stepscope recording")
        version = int.from_bytes(header[len(MAGIC) : len(MAGIC) + 2], "little")
        if version > FORMAT_VERSION:
            raise NotARecordingError(
                f"{self.path} has format version {version}, this program reads up to {FORMAT_VERSION}; "
                "install a newer stepscope"
            )

    def _skip_damage(self, size: int, *, torn: bool = False) -> bool:
        """Go to the next marker behind the damage; False if there is none (yet)."""
        start = self._scanned
        found = self._find_marker(start + 1, size)
        if found is None:
            if not torn:
                self._tell(start, size)
                self._scanned = size
            return False
        self._tell(start, found)
        self._scanned = found
        return True

    def _find_marker(self, start: int, size: int) -> int | None:
        step = 1 << 20
        while start < size:
            data = self.read(start, min(step + len(MARKER), size - start))
            position = data.find(MARKER)
            while position >= 0:
                candidate = start + position
                prefix = data[position : position + PREFIX_SIZE]
                if len(prefix) < PREFIX_SIZE and candidate + PREFIX_SIZE <= size:
                    prefix = self.read(candidate, PREFIX_SIZE)
                place = read_prefix(prefix, candidate)
                if place is not None and place.end <= size:
                    return candidate
                position = data.find(MARKER, position + 1)
            start += step
        return None

    def _tell(self, start: int, end: int) -> None:
        self.problems.append(f"{self.name}: bytes {start} to {end} are damaged and were skipped")
