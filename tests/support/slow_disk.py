"""A disk that takes its time: the files of every ``TrialWriter`` that is made meanwhile write slowly, or not at all."""

from __future__ import annotations

import builtins
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stepscope.store import append_file


class SlowDisk:
    """Writes wait until the disk ``moves`` (it does from the start), and take ``seconds`` each."""

    def __init__(self) -> None:
        self.moves = threading.Event()
        self.moves.set()
        self.seconds = 0.0

    def open(self, path: Path, mode: str, buffering: int) -> _SlowFile:
        return _SlowFile(builtins.open(path, mode, buffering=buffering), self)


class _SlowFile:
    def __init__(self, file: Any, disk: SlowDisk) -> None:
        self._file, self._disk = file, disk

    def write(self, data: memoryview) -> int:
        self._disk.moves.wait()
        if self._disk.seconds:
            time.sleep(self._disk.seconds)
        return int(self._file.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def slow_disk() -> Iterator[SlowDisk]:
    """Every file that a writer opens in here lies on this disk; at the end it moves again."""
    disk = SlowDisk()
    append_file.open = disk.open  # type: ignore[attr-defined]
    try:
        yield disk
    finally:
        disk.moves.set()
        del append_file.open  # type: ignore[attr-defined]
