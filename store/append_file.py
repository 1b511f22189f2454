"""A file that only grows, and stays valid when a write fails."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from stepscope.store.files import file_header


class AppendFile:
    """Appends blocks; each is written at once, so that a reader sees it whole, or torn at the file's end.

    Attributes:
        path: where the file is.
        size: the bytes that are known to be valid.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - lives as long as the writer
        self.size = self._file.tell()
        self._torn = False
        if self.size == 0:
            self.append(file_header())

    def append(self, block: bytes) -> int:
        """Append a block; returns the offset at which it starts.

        Raises:
            OSError: it could not be written; the file is as it was before, and may be tried again.
        """
        if self._torn:
            self.cut(self.size)
        offset = self.size
        try:
            self._write_all(block)
        except OSError:
            with contextlib.suppress(OSError):
                self.cut(offset)
            raise
        self.size += len(block)
        return offset

    def cut(self, size: int) -> None:
        """Drop what was appended after this size; a half-written block would hide what comes after it."""
        self._torn = True
        self._file.truncate(size)
        self.size, self._torn = size, False

    def check_place(self) -> None:
        """Raise ``FileNotFoundError`` if the file is no longer where it was made: what is written would be lost."""
        own = os.fstat(self._file.fileno())
        try:
            there = os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            there = None
        if there is None or (own.st_ino, own.st_dev) != (there.st_ino, there.st_dev):
            raise FileNotFoundError(
                errno.ENOENT, "the recording was moved, removed or replaced; put it back to go on", str(self.path)
            )

    def close(self) -> None:
        self._file.close()

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        while len(view):
            written = self._file.write(view)
            if not written:
                raise OSError(errno.EIO, "nothing could be written", str(self.path))
            view = view[written:]
