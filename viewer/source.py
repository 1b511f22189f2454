"""The recordings that a running viewer shows: a group, refreshed on demand, safe to use from several requests."""

from __future__ import annotations

import threading
from pathlib import Path

from stepscope.store import Group, Trial, open_group
from stepscope.store.errors import StoreError


class Source:
    """A group under a lock. ``version`` changes when anything new was read."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._lock = threading.RLock()
        self._group: Group | None = None
        self._version = 0
        self.refresh()

    @property
    def group(self) -> Group | None:
        """The group, or None while the folder does not exist."""
        return self._group

    def trial(self, name: str) -> Trial:
        """A trial of the group.

        Raises:
            StoreError: there is none of this name, or it cannot be read.
        """
        with self._lock:
            if self._group is None:
                raise StoreError(f"there is no folder {self.folder}")
            return self._group[name]

    def refresh(self) -> int:
        """Read what is new; returns the version."""
        with self._lock:
            if self._group is None:
                self._open()
            if self._group is not None:
                changed = self._group.refresh()
                for name in self._group.names:
                    changed = self._refresh_trial(name) or changed
                self._version += changed
            return self._version

    def _open(self) -> None:
        if self.folder.is_dir():
            self._group = open_group(self.folder)
            self._version += 1

    def _refresh_trial(self, name: str) -> bool:
        assert self._group is not None
        try:
            trial = self._group[name]
            if trial.end is not None:
                return False
            before = trial.state
            return trial.refresh() or trial.state != before
        except (StoreError, OSError):
            return False
