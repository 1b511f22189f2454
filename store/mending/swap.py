"""Putting repaired files in the place of damaged ones. Whenever it is interrupted, it can be finished, or taken back.

The new files are made in the folder ``repairing`` inside the trial's. Once they are complete, ``repairing/ready`` says
so; from then on, whoever comes next moves them into place. Each damaged file is first given a second name in a folder
``damaged-1``, ``damaged-2``, ..., so that it is never gone.
"""

from __future__ import annotations

import contextlib
import filecmp
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from stepscope.store.detail_parts import file_names
from stepscope.store.files import file_path
from stepscope.store.keepsake import REPAIRING, new_keepsake

_READY = "ready"
_NAME = re.compile(r"[a-z]+(-[0-9]+)?")


def stage(trial: Path) -> Path:
    """A folder with the trial's files, to be mended: each under a second name, or as a copy."""
    folder = trial / REPAIRING
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in file_names(trial):
        if file_path(trial, name).exists():
            _link(file_path(trial, name), file_path(folder, name))
    return folder


def commit(trial: Path) -> Path | None:
    """Move what was changed into place. Returns where the originals are, if there are any."""
    folder = trial / REPAIRING
    changed = [name for name in file_names(folder) if _is_changed(trial, folder, name)]
    for name in changed:
        _sync(file_path(folder, name))
    keepsake = new_keepsake(trial) if any(file_path(trial, name).exists() for name in changed) else None
    plan = {"files": changed, "originals": None if keepsake is None else keepsake.name}
    beside = folder / f"{_READY}.new"
    beside.write_text(json.dumps(plan), "utf-8")
    _sync(beside)
    beside.replace(folder / _READY)
    finish(trial)
    return keepsake


def finish(trial: Path) -> bool:
    """Finish a repair that was interrupted, or take it back if it was not ready. Returns whether files were moved."""
    folder = trial / REPAIRING
    if not folder.is_dir() or folder.is_symlink():
        return False
    plan = _plan(folder)
    if plan is not None:
        files, originals = plan
        for name in files:
            _move(trial, folder, originals, name)
        (folder / _READY).unlink()
    shutil.rmtree(folder)
    return plan is not None


def _plan(folder: Path) -> tuple[Sequence[str], str | None] | None:
    try:
        plan = json.loads((folder / _READY).read_text("utf-8"))
        files, originals = [name for name in plan["files"] if _NAME.fullmatch(name)], plan["originals"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return files, Path(originals).name if isinstance(originals, str) else None


def _move(trial: Path, folder: Path, originals: str | None, name: str) -> None:
    new, place = file_path(folder, name), file_path(trial, name)
    if not new.exists():
        return  # it was moved before the interruption
    if originals is not None and place.exists() and not file_path(trial / originals, name).exists():
        (trial / originals).mkdir(exist_ok=True)
        _link(place, file_path(trial / originals, name))
    new.replace(place)


def _is_changed(trial: Path, folder: Path, name: str) -> bool:
    new, old = file_path(folder, name), file_path(trial, name)
    if not new.exists() or not old.exists():
        return new.exists()
    return not new.samefile(old) and not filecmp.cmp(new, old, shallow=False)


def _link(source: Path, target: Path) -> None:
    """A second name for a file or, where the file system has none, a whole copy of it."""
    try:
        os.link(source, target)
    except OSError:
        beside = target.with_suffix(".copy")
        shutil.copy2(source, beside)
        _sync(beside)
        beside.replace(target)


def _sync(path: Path) -> None:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        os.fsync(file.fileno())
