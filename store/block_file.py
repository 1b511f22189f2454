"""A file of blocks as a reader sees it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stepscope.store.blocks import (
    MARKER,
    PREFIX_SIZE,
    UNKNOWN_KIND,
    BlockPlace,
    checksum_fits,
    read_header,
    read_prefix,
)
from stepscope.store.errors import DamagedError, NotARecordingError
from stepscope.store.files import FILE_HEADER_SIZE, check_file_header

_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
_SEARCHED_AT_ONCE = 1 << 20
_SMALL = 1 << 16
_USUAL_HEADER = 1 << 10


class BlockFile:
    """Knows the complete blocks so far, and finds new ones when asked again.

    Attributes:
        problems: what is damaged, in sentences.
        is_foreign: whether the file does not even start like one of a recording.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []
        self.is_foreign = False
        self._scanned = 0
        self._searched = (0, 0.0)
        self._looked_at = 0
        self._descriptor: int | None = None

    @property
    def name(self) -> str:
        return self.path.name

    def size(self) -> int:
        """The file's size now; 0 if it does not exist. A file that was removed while it was read keeps its size."""
        try:
            return (os.lstat(self.path) if self._descriptor is None else os.fstat(self._descriptor)).st_size
        except OSError:
            return 0

    def last_change(self) -> float:
        """When the file was last written to, in seconds since the epoch; 0 if it does not exist."""
        try:
            return os.lstat(self.path).st_mtime
        except OSError:
            return 0.0

    def unread(self) -> int:
        """Bytes at the end that are no whole block; 0 if there is more to be read than was looked at."""
        return self._looked_at - self._scanned if self._scanned and self.size() <= self._looked_at else 0

    def was_replaced(self) -> bool:
        """Whether another file is now where this one was read from."""
        if self._descriptor is None:
            return False
        try:
            there, own = os.lstat(self.path), os.fstat(self._descriptor)
        except OSError:
            return False
        return (there.st_ino, there.st_dev) != (own.st_ino, own.st_dev)

    def new_blocks(self, *, unknown: bool = False) -> Iterator[tuple[BlockPlace, dict[str, Any]]]:
        """The blocks that were completed since the last call, with their headers; ``unknown`` ones too if asked for.

        A block whose prefix or header is damaged is skipped: the search goes on at the next one.
        """
        size = self.size()
        # An end that was torn may have been cut, and as much been written in its place.
        now = (size, self.last_change())
        if size < FILE_HEADER_SIZE or size <= self._scanned or now == self._searched:
            return
        self._looked_at = size
        if self._scanned == 0:
            self._open()
            self._scanned = FILE_HEADER_SIZE
        while self._scanned + PREFIX_SIZE <= size:
            found = self._block_at(self._scanned, size)
            if found is None:
                if not self._skip_damage(size):
                    self._searched = now
                    return
                continue
            place, header = found
            self._scanned = place.end
            if unknown or place.kind != UNKNOWN_KIND:
                yield place, header

    def blocks_within(self, start: int, end: int) -> Iterator[tuple[BlockPlace, dict[str, Any]]]:
        """The whole blocks between two offsets, unknown ones too; what else lies there is passed over."""
        while start + PREFIX_SIZE <= end:
            found = self._block_at(start, end)
            if found is not None:
                yield found
                start = found[0].end
                continue
            following = self._next_block(start + 1, end)
            if following is None:
                return
            start = following

    def block(self, offset: int, kind: str) -> tuple[BlockPlace, dict[str, Any]]:
        """The block of a kind that starts at an offset.

        Raises:
            DamagedError: there is none, or it is damaged.
        """
        found = self._block_at(offset, self.size()) if offset >= FILE_HEADER_SIZE else None
        if found is None or found[0].kind != kind:
            raise DamagedError(f"{self.name} has no readable {kind} at byte {offset}")
        return found

    def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes of the file.

        Raises:
            DamagedError: the file has no such bytes.
        """
        try:
            descriptor = self._open() if self._descriptor is None else self._descriptor
            if length > _SMALL and offset + length > os.fstat(descriptor).st_size:
                data = b""  # a damaged length must not make room for gigabytes
            else:
                data = os.pread(descriptor, length, offset)
        except (OSError, OverflowError) as error:
            raise DamagedError(f"{self.name} cannot be read ({error})") from error
        if len(data) != length:
            raise DamagedError(f"{self.name} has no {length} bytes at byte {offset}")
        return data

    def _open(self) -> int:
        """Open the file and look at its first bytes."""
        try:
            self._descriptor = os.open(self.path, _FLAGS)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise NotARecordingError(f"{self.path} is a link; the files of a recording are not") from error
            raise
        state = check_file_header(self.path, os.pread(self._descriptor, FILE_HEADER_SIZE, 0))
        self.is_foreign = state == "foreign"
        if state != "fine":
            self.problems.append(f"{self.name}: its first {FILE_HEADER_SIZE} bytes are not those of a recording")
        return self._descriptor

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def _block_at(self, offset: int, size: int) -> tuple[BlockPlace, dict[str, Any]] | None:
        """The complete block that starts here; None if there is none, or if it is damaged."""
        data = self.read(offset, min(PREFIX_SIZE + _USUAL_HEADER, max(size - offset, 0)))
        place = read_prefix(data, offset)
        if place is None or place.end > size:
            return None
        length = PREFIX_SIZE + place.header_length
        header = read_header(data[:length] if length <= len(data) else self.read(offset, length))
        return None if header is None else (place, header)

    def _skip_damage(self, size: int) -> bool:
        """Go to the next block behind the damage; False if there is none (yet)."""
        found = self._next_block(self._scanned + 1, size)
        if found is not None:
            self.problems.append(f"{self.name}: bytes {self._scanned} to {found} are damaged and were skipped")
            self._scanned = found
        return found is not None

    def _next_block(self, start: int, size: int) -> int | None:
        while start < size:
            data = self.read(start, min(_SEARCHED_AT_ONCE + len(MARKER), size - start))
            position = data.find(MARKER)
            while position >= 0:
                if self._is_block(start + position, size):
                    return start + position
                position = data.find(MARKER, position + 1)
            start += _SEARCHED_AT_ONCE
        return None

    def _is_block(self, offset: int, size: int) -> bool:
        place = read_prefix(self.read(offset, min(PREFIX_SIZE, size - offset)), offset)
        return (
            place is not None
            and place.end <= size
            and checksum_fits(self.read(offset, PREFIX_SIZE + place.header_length))
        )
