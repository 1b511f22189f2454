"""A group at an address."""

from __future__ import annotations

import contextlib
import shutil
from concurrent.futures import ThreadPoolExecutor

from stepscope.store.address import split
from stepscope.store.errors import NotARecordingError, StoreError
from stepscope.store.group import Group
from stepscope.store.names import checked_trial_name
from stepscope.store.remote.folder import RemoteFolder
from stepscope.store.remote.manifest import find_trial
from stepscope.store.remote.places import ADDRESS_FILE, cache_folder
from stepscope.store.remote.trial import RemoteTrial, is_remote_trial
from stepscope.store.remote.trial_copy import TrialCopy
from stepscope.store.trial import Trial

_AT_ONCE = 16
"""How many manifests are fetched at the same time."""


class RemoteGroup(Group):
    """The trials at an address; each is fetched when it is first asked for. ``path`` is the group's local cache.

    Attributes:
        address: where the group is.
    """

    def __init__(self, address: str) -> None:
        self._only: str | None = None
        if is_remote_trial(address):
            address, self._only = split(address)
        self._remote = RemoteFolder(address)
        self.address = self._remote.address
        self.path = cache_folder(address)
        self.problems: dict[str, str] = {}
        self._trials: dict[str, Trial] = {}
        self._names: tuple[str, ...] = ()
        self._starts: dict[str, float] = {}
        self.refresh()
        if not self._names and not self._remote.names():
            raise NotARecordingError(f"there is nothing at {self.address}; give the address that the recorder wrote to")

    def _open(self, name: str) -> Trial:
        return RemoteTrial(TrialCopy(self._remote, name, self.path / name))

    def is_live(self, name: str) -> bool:
        """Whether a trial is being written to; fetches nothing but its manifest."""
        if name in self._trials:
            return super().is_live(name)
        with contextlib.suppress(StoreError):
            manifest = find_trial(self._remote, name)
            return manifest is not None and manifest.is_live
        return False

    def refresh(self) -> bool:
        """Look for new trials, and for trials that are gone; those are removed from the cache, too.

        Raises:
            UnreachableError: the address does not answer.
        """
        found = self._found()
        for gone in set(self._names) - found:
            for kept in (self._trials, self._starts, self.problems):
                kept.pop(gone, None)
        self._forget_others(found)
        names = tuple(sorted(found, key=lambda name: (self._starts.get(name, 0.0), name)))
        changed = names != self._names
        self._names = names
        return changed

    def _found(self) -> set[str]:
        """The names of what is a trial there."""
        if self._only is not None:
            return {self._only} if self._is_trial(self._only) else set()
        names = {name for name in self._remote.names() if _is_safe(name)}
        known = names.intersection(self._starts)
        new = sorted(names - known)
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            return known.union(name for name, there in zip(new, threads.map(self._is_trial, new), strict=True) if there)

    def _is_trial(self, name: str) -> bool:
        try:
            manifest = find_trial(self._remote, name)
        except StoreError as error:
            self.problems[name] = str(error)
            return True
        if manifest is not None:
            self._starts[name] = manifest.started
        return manifest is not None

    def _forget_others(self, found: set[str]) -> None:
        """Remove from the cache what is no longer there."""
        for entry in self.path.iterdir():
            if self._only is None and entry.name not in found and entry.name != ADDRESS_FILE:
                shutil.rmtree(entry, ignore_errors=True)


def _is_safe(name: str) -> bool:
    """Whether a name can be a trial's; what leads out of the cache is none."""
    with contextlib.suppress(StoreError):
        return checked_trial_name(name) == name
    return False
