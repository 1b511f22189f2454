"""Folders inside of a trial's, in which damaged bytes are kept: nothing is ever thrown away."""

from __future__ import annotations

from pathlib import Path

REPAIRING = "repairing"
"""Where files are repaired; it is gone when they are."""

_PREFIX = "damaged-"


def new_keepsake(trial: Path) -> Path:
    """Make the next such folder: ``damaged-1``, ``damaged-2``, ..."""
    number = 1
    while True:
        folder = trial / f"{_PREFIX}{number}"
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1


def is_keepsake(entry: Path) -> bool:
    """Whether an entry of a trial's folder is one of these, or where files are being repaired."""
    if entry.name == REPAIRING:
        return entry.is_dir() and not entry.is_symlink()
    return entry.name.startswith(_PREFIX) and entry.name[len(_PREFIX) :].isdigit() and not entry.is_symlink()
