"""The files that hold details: one, or with a limit of bytes several, which are rewritten when they are thinned.

A rewritten file takes the place of the old one in a single move. In it, each block says where it ``was`` in the first
one, which is what steps refer to: so every file explains itself, and whoever has the old one open can go on with it.
"""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

from stepscope.store.block_file import BlockFile
from stepscope.store.errors import DamagedError, StoreError
from stepscope.store.files import FILE_NAMES, SUFFIX, file_path

_NAME = "detail"
_NEW = "new-"


def part_path(trial: Path, part: int) -> Path:
    """Where a trial keeps a part of its details; part 0 is the file that every trial has."""
    return file_path(trial, f"{_NAME}-{part}" if part else _NAME)


def new_part_path(trial: Path, part: int) -> Path:
    """Where a part is rewritten."""
    path = part_path(trial, part)
    return path.with_name(_NEW + path.name)


def parts_of(trial: Path) -> list[int]:
    """The parts that a trial has, in order."""
    names = (path.name.removesuffix(SUFFIX) for path in trial.glob(f"{_NAME}*{SUFFIX}") if not path.is_symlink())
    numbers = (name.removeprefix(_NAME).removeprefix("-") or "0" for name in names)
    return sorted({int(number) for number in numbers if number.isascii() and number.isdigit()})


def file_names(trial: Path) -> list[str]:
    """The names of all files that a trial has, or should have: with all parts of its details."""
    return [*FILE_NAMES, *(f"{_NAME}-{part}" for part in parts_of(trial) if part)]


def unfinished_parts(trial: Path) -> list[Path]:
    """What a writer that died in the middle of thinning left behind; nobody needs it."""
    return sorted(trial.glob(f"{_NEW}{_NAME}*{SUFFIX}"))


class DetailPart:
    """A part as a reader sees it: one file, or the one that took its place before this reader came."""

    def __init__(self, file: BlockFile) -> None:
        self.file = file
        self._moved: dict[int, int] = {}
        self._lock = threading.Lock()

    def place_of(self, offset: int, number: int) -> tuple[BlockFile, int]:
        """Where the block is now that was at an offset when its step was written; the same offset if it is nowhere."""
        if self._is_there(offset, number):
            return self.file, offset
        with self._lock:
            if offset not in self._moved:
                self._look()
            return self.file, self._moved.get(offset, offset)

    def _is_there(self, offset: int, number: int) -> bool:
        try:
            _, header = self.file.block(offset, _NAME)
        except DamagedError:
            return False
        return header.get("number") == number and header.get("was", offset) == offset

    def _look(self) -> None:
        with contextlib.suppress(StoreError, OSError):
            for place, header in self.file.new_blocks():
                if isinstance(was := header.get("was"), int):
                    self._moved[was] = place.offset


class DetailParts:
    """All parts of a trial as a reader sees them; a file is opened when it is first needed."""

    def __init__(self, trial: Path, first: BlockFile) -> None:
        self._trial = trial
        self._parts = {0: DetailPart(first)}

    def part(self, number: int) -> DetailPart:
        """A part of this number, whether there is one or not."""
        if number not in self._parts:
            self._parts[number] = DetailPart(BlockFile(part_path(self._trial, number)))
        return self._parts[number]

    def refresh(self) -> bool:
        """Look for parts that were rewritten since they were opened. Returns whether there are any."""
        replaced = [number for number, part in self._parts.items() if number and part.file.was_replaced()]
        for number in replaced:
            self._parts[number] = DetailPart(BlockFile(part_path(self._trial, number)))
        return bool(replaced)

    def size(self) -> int:
        """The bytes of all parts but the first."""
        return sum(self.part(number).file.size() for number in parts_of(self._trial) if number)
