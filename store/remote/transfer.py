"""Whole trials from here to an address, and back."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from stepscope.store import lock
from stepscope.store.address import shown
from stepscope.store.errors import TrialExistsError, TrialInUseError
from stepscope.store.group import open_group
from stepscope.store.remote.claim import claim
from stepscope.store.remote.folder import RemoteFolder
from stepscope.store.remote.group import RemoteGroup
from stepscope.store.remote.spool import is_spooled, remove_uploaded
from stepscope.store.remote.trial_copy import STATE, TrialCopy
from stepscope.store.remote.uploader import Uploader


def upload(folder: Path | str, address: str) -> tuple[str, ...]:
    """Upload a trial, or all trials of a group; what is there already is not uploaded again.

    >>> upload("runs/sums", "s3://bucket/sums")                         # doctest: +SKIP
    ('s3://bucket/sums/bugged', 's3://bucket/sums/fixed')

    Args:
        folder: a trial's folder, or a group's; also the spool of a recorder that died.
        address: that of the group; a trial gets another name there if its own is taken by another trial.

    Returns:
        Where the trials are now.

    Raises:
        TrialInUseError: somebody who may be alive writes to one of them, here or there.
        UnreachableError: the address does not answer; call it again, and it goes on.
    """
    remote, group = RemoteFolder(address), open_group(folder)
    return tuple(upload_trial(group.path / name, remote) for name in group.names)


def upload_trial(trial: Path, remote: RemoteFolder) -> str:
    """Upload what is missing of a local trial that nobody writes to any more; returns its address.

    What lies in the spool is removed from it then.

    Raises:
        TrialInUseError, UnreachableError: as ``upload``.
    """
    if not _take_lock(trial):
        raise TrialInUseError(f"{trial} is being written to; upload it when its recorder has ended")
    try:
        uploader = Uploader(trial, remote, *claim(remote, trial))
        uploader.upload(last=True)
        if is_spooled(trial, remote.address):
            remove_uploaded(trial)
        return f"{remote.address}/{uploader.name}"
    finally:
        lock.release(trial)


def _take_lock(trial: Path) -> bool:
    try:
        return lock.take(trial)
    except OSError:  # where nothing can be written, nobody starts to write either
        return not lock.is_held(trial)


def download(address: str, folder: Path | str) -> tuple[Path, ...]:
    """Fetch a trial, or all trials of a group, as they are now: as trials in a local folder.

    >>> download("s3://bucket/sums/bugged", "runs/sums")                # doctest: +SKIP
    (PosixPath('runs/sums/bugged'),)

    Args:
        address: that of a trial or of a group.
        folder: the folder of a group; made if it is missing.

    Returns:
        The folders of the trials.

    Raises:
        NotARecordingError: there is nothing at the address.
        TrialExistsError: a trial of this name is in the folder already.
        UnreachableError: the address does not answer.
    """
    group = RemoteGroup(address)
    return tuple(download_trial(RemoteFolder(group.address), name, Path(folder)) for name in group.names)


def download_trial(remote: RemoteFolder, name: str, group: Path) -> Path:
    """Fetch all of a trial into a group's folder; returns its own. A download that is cut short leaves nothing."""
    path = group / name
    if path.exists() or path.is_symlink():
        raise TrialExistsError(f"{path} exists; {shown(remote.address)}/{name} is not written over it")
    group.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=group) as beside:
        copy = Path(beside) / name
        TrialCopy(remote, name, copy).fetch_all()
        (copy / STATE).unlink()
        (copy / lock.LOCK_NAME).unlink(missing_ok=True)
        shutil.move(copy, path)
    return path
