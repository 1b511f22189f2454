"""Claiming the folder of a trial: nothing that exists is lost unless that was asked for."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Literal

from stepscope.store import lock
from stepscope.store.errors import NotARecordingError, StoreError, TrialExistsError, TrialInUseError
from stepscope.store.files import SUFFIX
from stepscope.store.keepsake import is_keepsake

_LOOK_AGAIN = 0.5

IfExists = Literal["number", "fail", "overwrite"]


def claim(group: Path, name: str, if_exists: IfExists) -> Path:
    """Make (or empty) the folder of a trial, and take its lock."""
    if if_exists not in ("number", "fail", "overwrite"):
        raise StoreError(f"if_exists={if_exists!r}: expected 'number', 'fail' or 'overwrite'")
    path = group / name
    if lock.is_held(path):
        raise in_use(path)
    if path.exists() or path.is_symlink():
        path = _make_room(path, if_exists)
    path.mkdir(parents=True, exist_ok=True)
    if not lock.take(path):
        raise in_use(path)
    return path


def claim_unused(path: Path) -> None:
    """Make a folder for a trial of exactly this name, or take one in which no trial ever got as far as a file."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise NotARecordingError(f"{path} is no folder of a trial; give another trial name")
    path.mkdir(parents=True, exist_ok=True)
    foreign = [entry.name for entry in path.iterdir() if not _is_ours(entry)]
    if foreign:
        raise NotARecordingError(f"{path} holds {foreign[0]!r}, and no recording; give another trial name")
    reclaim(path)


def reclaim(path: Path) -> None:
    """Take the lock of a trial that exists, to go on with it.

    If its writer was on another machine, its silence is waited for: a job that was moved can go on with its trial.
    """
    if path.is_symlink():
        raise NotARecordingError(f"{path} is a link; give the folder that it leads to")
    beat = None
    while not lock.take(path):
        last, beat = beat, lock.last_beat(path)
        if beat is None or (last is not None and last != beat):
            raise in_use(path)  # it is alive, or cannot be told from one that is
        time.sleep(_LOOK_AGAIN)


def _make_room(path: Path, if_exists: IfExists) -> Path:
    if if_exists == "fail":
        raise TrialExistsError(f"{path} exists; give another trial name, or if_exists='number' or 'overwrite'")
    if if_exists == "overwrite":
        _remove_trial(path)
        return path
    number = 2
    while (candidate := path.with_name(f"{path.name}-{number}")).exists() or candidate.is_symlink():
        number += 1
    return candidate


def _remove_trial(path: Path) -> None:
    """Delete an old trial; a folder that is none is left alone."""
    if path.is_symlink() or not path.is_dir():
        raise StoreError(f"{path} is no folder of a trial; it is not overwritten")
    foreign = [entry.name for entry in path.iterdir() if not _is_ours(entry)]
    if foreign:
        raise StoreError(f"{path} holds {foreign[0]!r}, which no trial has; it is not overwritten")
    shutil.rmtree(path)


def _is_ours(entry: Path) -> bool:
    return entry.suffix == SUFFIX or is_keepsake(entry) or entry.name.startswith(lock.LOCK_NAME)


def in_use(path: Path) -> TrialInUseError:
    owner = lock.owner_of(path) or {}
    return TrialInUseError(
        f"{path} is being written to by process {owner.get('pid')} on {owner.get('host')}; "
        "close that recorder first, or give this one another trial name"
        + (f" (if that process is dead, delete {path / lock.LOCK_NAME})" if lock.is_elsewhere(owner) else "")
    )
