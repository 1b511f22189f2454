"""A remote trial as a reader sees it: the trial in its local copy, which follows the remote one."""

from __future__ import annotations

from pathlib import Path

from stepscope.store.address import split
from stepscope.store.block_file import BlockFile
from stepscope.store.errors import NotARecordingError
from stepscope.store.names import checked_trial_name
from stepscope.store.remote.folder import RemoteFolder
from stepscope.store.remote.lazy_file import LazyFile
from stepscope.store.remote.manifest import find_trial
from stepscope.store.remote.places import cache_folder
from stepscope.store.remote.trial_copy import LAZY, TrialCopy
from stepscope.store.trial import Trial


class RemoteTrial(Trial):
    """A trial at an address; ``path`` is its local copy. Everything else is as with a local trial.

    Attributes:
        address: where the trial is.
    """

    def __init__(self, copy: TrialCopy) -> None:
        self._copy = copy
        self.address = copy.address
        if not copy.refresh():
            raise NotARecordingError(f"there is no trial at {copy.address}")
        self._is_fetched = True
        super().__init__(copy.folder)

    def _open_file(self, path: Path) -> BlockFile:
        return LazyFile(path, self._copy) if path.name == LAZY else super()._open_file(path)

    @property
    def last_change(self) -> float:
        """When something new was last uploaded, in seconds since the epoch."""
        return self._copy.manifest.changed

    def refresh(self) -> bool:
        """Fetch and read what was uploaded since the last look. Returns whether there was anything new.

        Raises:
            UnreachableError: the address does not answer.
        """
        with self._lock:
            if not self._is_fetched:  # before the first look, it has just been
                self._fetch()
            self._is_fetched = False
            return super().refresh()

    def _fetch(self) -> None:
        before = self._copy.manifest
        self._copy.refresh()
        if self._copy.is_other_than(before):
            self._start_over()


def open_remote_trial(address: str) -> RemoteTrial:
    """Open the trial at an address.

    Raises:
        NotARecordingError: there is none.
        UnreachableError: it does not answer.
    """
    group, name = split(address)
    checked_trial_name(name)
    remote = RemoteFolder(group)
    copy = TrialCopy(remote, name, cache_folder(group) / name)
    try:
        return RemoteTrial(copy)
    except NotARecordingError as error:
        if copy.manifest.is_started:
            raise
        raise NotARecordingError(f"{error}{_hint(RemoteFolder(address))}") from error


def is_remote_trial(address: str) -> bool:
    """Whether there is a trial at an address, and not a group or nothing."""
    group, name = split(address)
    return not group.endswith(":/") and find_trial(RemoteFolder(group), name) is not None


def _hint(remote: RemoteFolder) -> str:
    inside = next((name for name in remote.names() if find_trial(remote, name) is not None), None)
    return f"; but there is a group with {inside!r}: give one of its trials, or open_group(...)" if inside else ""
