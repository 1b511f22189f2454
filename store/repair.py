"""Rebuilding what can be rebuilt of a damaged trial."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from stepscope.store import lock
from stepscope.store.address import is_address
from stepscope.store.claim import in_use, reclaim
from stepscope.store.contents import Contents
from stepscope.store.detail_parts import file_names
from stepscope.store.errors import NotARecordingError, StoreError
from stepscope.store.files import FILE_NAMES, file_path
from stepscope.store.group import Group
from stepscope.store.mending.findings import Findings
from stepscope.store.mending.mend import mend
from stepscope.store.mending.scan import Scan
from stepscope.store.mending.swap import commit, finish, stage
from stepscope.store.resume import check_plain_files, is_started
from stepscope.store.verify import verify_trial


@dataclass(frozen=True)
class Repair:
    """What a repair found and did, in sentences.

    Attributes:
        trial: the repaired trial's folder.
        damaged: what was damaged, as ``verify`` says it; empty if nothing was, and nothing was done.
        rebuilt: what was rebuilt from what is written twice.
        lost: what could not be.
        left: what is still damaged; empty unless something went very wrong.
        steps: how many steps can be read now.
        originals: where the damaged files are kept; None if none was changed.
    """

    trial: Path
    damaged: tuple[str, ...]
    rebuilt: tuple[str, ...]
    lost: tuple[str, ...]
    left: tuple[str, ...]
    steps: int
    originals: Path | None


def repair(trial: Path | str, out: Path | str | None = None) -> Repair:
    """Take out what is damaged of a trial, and rebuild what is written twice. What can be read stays as it is.

    >>> repair("runs/sums/bugged").lost                                 # doctest: +SKIP
    ('step 1200: its block in the steps' file is damaged',)

    Args:
        trial: the trial's folder.
        out: a folder to be made for the repaired copy; the trial itself stays as it is. Without it the trial is
            repaired in its place, and its damaged files are kept in a folder ``damaged-1`` in it.

    Raises:
        TrialInUseError: a process that may be alive writes to the trial.
        NotARecordingError: it is no trial, or one in a newer format; nothing was changed.
        StoreError: ``out`` exists.
    """
    path = _checked(trial)
    if out is not None:
        return _repair_copy(path, Path(out))
    reclaim(path)
    try:
        finish(path)
        return _repair_in_place(path)
    finally:
        lock.release(path)


def _repair_in_place(path: Path) -> Repair:
    folder = stage(path)
    done = _mended(folder, path)
    originals = commit(path) if done.damaged else None
    finish(path)
    return replace(done, trial=path, originals=originals)


def _repair_copy(path: Path, out: Path) -> Repair:
    if lock.is_held(path):
        raise in_use(path)
    if out.exists() or out.is_symlink():
        raise StoreError(f"{out} exists; give a folder that is to be made")
    out.mkdir(parents=True)
    for name in file_names(path):
        if file_path(path, name).exists():
            shutil.copy2(file_path(path, name), file_path(out, name))
    return _mended(out, path)


def _mended(folder: Path, trial: Path) -> Repair:
    """Mend the files in a folder, which are those of a trial."""
    damaged = tuple(verify_trial(folder))
    findings = mend(folder, trial.name, _siblings(trial)) if damaged else Findings()
    contents = Contents(folder)
    contents.refresh()
    left = tuple(verify_trial(folder)) if damaged else ()
    return Repair(folder, damaged, findings.rebuilt, findings.lost, left, len(contents.index.numbers), None)


def _checked(trial: Path | str) -> Path:
    """The folder, if it is one of a trial that this program may change."""
    if is_address(trial):
        raise StoreError(f"{trial} is an address; download the trial, and repair the copy")
    path = Path(trial).resolve()
    if not path.is_dir() or not is_started(path):
        raise NotARecordingError(f"{trial} is no folder of a trial; give the folder of one trial of a group")
    check_plain_files(path)
    if not any(Scan(path, name).blocks for name in FILE_NAMES):
        raise NotARecordingError(f"{trial} has no file in which anything of a Stepscope recording is left")
    return path


def _siblings(path: Path) -> list[Path]:
    """The other trials of the group."""
    group = Group(path.parent)
    return [path.parent / name for name in group.names if name != path.name]
