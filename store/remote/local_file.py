"""A file of a local trial as an uploader sees it: its whole blocks so far, and whether they are still those it knew."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from stepscope.store.block_file import BlockFile
from stepscope.store.errors import DamagedError
from stepscope.store.files import FILE_HEADER_SIZE
from stepscope.store.remote.manifest import RemoteFile

_TAIL = 1 << 16


class LocalFile:
    """Follows one file. Only whole blocks count: half of one may be taken back when a write fails.

    Attributes:
        size: where the last whole block ended when ``look`` was last called.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start_over()

    def _start_over(self) -> None:
        self._file = BlockFile(self.path)
        self.size = 0
        self._tail = (0, 0, 0)

    def look(self) -> int:
        """Find the blocks that were completed since the last look; returns ``size``."""
        if self._file.was_replaced() or self._file.size() < self.size:
            self._start_over()
        for place, _ in self._file.new_blocks():
            self.size = place.end
        if not self.size and self._file.size() >= FILE_HEADER_SIZE:
            self.size = FILE_HEADER_SIZE
        return self.size

    def was_replaced(self) -> bool:
        """Whether another file has taken its place since the last look."""
        return self._file.was_replaced()

    def read(self, start: int, end: int) -> bytes:
        return self._file.read(start, end - start)

    def remember(self, size: int) -> None:
        """Keep in mind how the bytes before ``size`` end, now that they are uploaded."""
        start = max(0, size - _TAIL)
        self._tail = (start, size, zlib.crc32(self.read(start, size)))

    def continues(self, known: RemoteFile) -> bool:
        """Whether the file still starts with the bytes that were uploaded; the last ones tell, once all were read."""
        if known.size > self.size:
            return False
        start, end, check = self._tail
        if end == known.size and end:
            return zlib.crc32(self.read(start, end)) == check
        return self._starts_with(known)

    def _starts_with(self, known: RemoteFile) -> bool:
        """Read all of it: the first time, and after the file was replaced."""
        try:
            return list(self._checks(known.ends)) == list(known.checks)
        except DamagedError:
            return False

    def _checks(self, ends: tuple[int, ...]) -> Iterator[int]:
        for start, end in pairwise((0, *ends)):
            yield zlib.crc32(self.read(start, end))
