"""What has to be done at an address, and in the spool, before a trial can be written."""

from __future__ import annotations

import time
from pathlib import Path

from stepscope.store.claim import IfExists
from stepscope.store.errors import NotARecordingError, StoreError, TrialExistsError
from stepscope.store.group import is_trial
from stepscope.store.remote.claim import in_use, numbered, trial_identity
from stepscope.store.remote.folder import RemoteFolder
from stepscope.store.remote.manifest import Manifest, read_manifest
from stepscope.store.remote.transfer import download_trial

_PAUSE = 1.0
"""Seconds between two looks at a trial whose writer may be dead."""


def prepare(remote: RemoteFolder, spool: Path, name: str, if_exists: IfExists, resume: bool) -> str:
    """Make the way free for a trial, or fetch the one that is resumed; returns the name to write it under.

    Raises:
        TrialExistsError: there is one, with ``if_exists="fail"``.
        TrialInUseError: somebody who may be alive writes to it.
        UnreachableError: the address does not answer.
    """
    if if_exists not in ("number", "fail", "overwrite"):
        raise StoreError(f"if_exists={if_exists!r}: expected 'number', 'fail' or 'overwrite'")
    there = read_manifest(remote, name)
    if resume:
        _fetch(remote, spool / name, there)
        return name
    if there is not None:
        return _make_room(remote, name, if_exists, there)
    return name


def may_wait(trial: Path, if_exists: IfExists, resume: bool) -> bool:
    """Whether a trial can be written without knowing what is at the address."""
    return is_trial(trial) if resume else if_exists == "number"


def _make_room(remote: RemoteFolder, name: str, if_exists: IfExists, there: Manifest) -> str:
    if if_exists == "number":  # also if it is in use: that shows by silence only, and training must not wait for it
        taken = set(remote.names())
        return next(other for other in numbered(name) if other not in taken)
    if there.is_live:
        raise in_use(remote, name, there)
    if if_exists == "fail":
        raise TrialExistsError(
            f"{remote.address}/{name} exists; give another trial name, or if_exists='number' or 'overwrite'"
        )
    remote.remove_folder(name)
    return name


def _fetch(remote: RemoteFolder, trial: Path, there: Manifest | None) -> None:
    """Fetch a trial that is to be gone on with, unless it is still in the spool, which is never behind."""
    if is_trial(trial):
        if there is not None and there.trial != trial_identity(trial):
            raise StoreError(
                f"{trial} waits to be uploaded, but {remote.address}/{trial.name} is another trial; "
                f"upload the first: stepscope upload {trial} {remote.address}"
            )
    elif there is not None and there.is_copied:
        raise StoreError(
            f"{remote.address}/{trial.name} was copied there as it is and cannot be gone on with; "
            f"stepscope download {remote.address}/{trial.name} fetches it, stepscope upload makes another one there"
        )
    elif there is not None:
        _wait_for_silence(remote, trial.name, there)
        download_trial(remote, trial.name, trial.parent)


def _wait_for_silence(remote: RemoteFolder, name: str, there: Manifest) -> None:
    """A job that is restarted on another machine may come before it shows that the first one is dead."""
    first = there
    while there.is_live:
        time.sleep(_PAUSE)
        now = read_manifest(remote, name)
        if now is None:
            raise NotARecordingError(f"{remote.address}/{name} was removed while it was waited for")
        if now.writer is not None and first.writer is not None and now.writer.beat != first.writer.beat:
            raise in_use(remote, name, now)
        there = now
