"""Damage for recordings."""

from __future__ import annotations

import shutil
from pathlib import Path

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


def blocks(trial: Path, name: str) -> list[BlockPlace]:
    """The blocks of an undamaged file."""
    return [place for place, _ in BlockFile(file_path(trial, name)).new_blocks()]
