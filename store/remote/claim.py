"""Claiming a remote trial: its name, and that nobody else writes to it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from stepscope.store import codec, lock
from stepscope.store.block_file import BlockFile
from stepscope.store.blocks import PREFIX_SIZE
from stepscope.store.errors import NotARecordingError, TrialInUseError
from stepscope.store.files import file_path
from stepscope.store.journal import started
from stepscope.store.remote.folder import RemoteFolder
from stepscope.store.remote.manifest import MANIFEST, Manifest, RemoteWriter, read_manifest


def claim(remote: RemoteFolder, trial: Path) -> tuple[str, Manifest]:
    """Get the place for a local trial: the one that it had before, or a new one, under another name if need be.

    Returns:
        The trial's name there, and its manifest, with this process as the writer.

    Raises:
        TrialInUseError: somebody else who may be alive is uploading the same trial.
        NotARecordingError: the local trial has not even a beginning.
    """
    identity = trial_identity(trial)
    writer = RemoteWriter(**lock.this_process(), token=secrets.token_hex(8), beat=time.time())
    new = Manifest(identity, started(BlockFile(file_path(trial, "journal"))), writer=writer)
    for name in numbered(trial.name):
        there = read_manifest(remote, name)
        if there is None:
            if remote.create(f"{name}/{MANIFEST}", new.to_bytes()):
                return name, new
            there = read_manifest(remote, name)
        if there is not None and there.trial == identity:
            return name, _take_over(remote, name, there, writer)
    raise AssertionError("there is always another number")


def _take_over(remote: RemoteFolder, name: str, there: Manifest, writer: RemoteWriter) -> Manifest:
    """Go on with what was uploaded before."""
    if there.is_live and not _is_of_this_machine(there):
        raise in_use(remote, name, there)
    there = there.with_writer(writer)
    remote.write(f"{name}/{MANIFEST}", there.to_bytes())
    return there


def trial_identity(trial: Path) -> str:
    """What tells a trial from any other: a digest of its journal's first block, which never changes.

    Raises:
        NotARecordingError: there is none.
    """
    journal = BlockFile(file_path(trial, "journal"))
    for place, _ in journal.new_blocks():
        length = PREFIX_SIZE + place.header_length
        return codec.digest(journal.read(place.offset, length)).hex()
    raise NotARecordingError(f"{trial} is no recording of a trial: its journal is empty")


def in_use(remote: RemoteFolder, name: str, manifest: Manifest) -> TrialInUseError:
    assert manifest.writer is not None
    return TrialInUseError(
        f"{remote.address}/{name} is being written to by process {manifest.writer.pid} on {manifest.writer.host}; "
        "close that recorder first, or give this one another trial name"
    )


def _is_of_this_machine(manifest: Manifest) -> bool:
    """Then the lock of the local trial has told already that its writer is dead, or is this one."""
    return manifest.writer is not None and not manifest.writer.is_elsewhere


def numbered(name: str) -> Iterator[str]:
    """``bugged``, ``bugged-2``, ``bugged-3``, ..."""
    yield name
    number = 2
    while True:
        yield f"{name}-{number}"
        number += 1
