"""The recordings that a running viewer shows: a group, refreshed on demand, safe to use from several requests."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from pathlib import Path

from stepscope.store import Group, NotARecordingError, Trial, open_group
from stepscope.store.address import is_address, shown
from stepscope.store.errors import StoreError

_REMOTE_PAUSE = 2.0
"""Seconds between two looks at an address: each is a request that may cost money."""

log = logging.getLogger("stepscope.viewer")


class Source:
    """A group under a lock. ``version`` changes when anything new was read.

    Attributes:
        name: the folder or the address, as it may be shown.
        title: its last part.
    """

    def __init__(self, folder: Path | str) -> None:
        self._place = folder if is_address(folder) else Path(folder)
        self.name = shown(folder) if is_address(folder) else str(folder)
        self.title = self.name.rpartition("/")[2] if is_address(folder) else Path(folder).name
        self._lock = threading.RLock()
        self._group: Group | None = None
        self._version = 0
        self._looked = 0.0
        self._problems: dict[Path, int] = {}
        self._open()
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
                raise StoreError(f"there is no folder {self.name}")
            return self._group[name]

    def refresh(self) -> int:
        """Read what is new; returns the version."""
        with self._lock:
            if is_address(self._place) and time.monotonic() - self._looked < _REMOTE_PAUSE:
                return self._version
            try:
                self._look()
            except OSError as error:
                log.warning("%s could not be refreshed: %s", self.name, error)
            self._looked = time.monotonic()
            return self._version

    def _look(self) -> None:
        if self._group is None:
            self._open()
        if self._group is not None:
            changed = self._group.refresh()
            for trial in self._group.opened:
                changed = _refresh_trial(trial) or changed
                changed = self._has_new_problem(trial) or changed
            self._version += changed

    def _has_new_problem(self, trial: Trial) -> bool:
        """Whether damage was met since the last look: it is where somebody reads, a finished trial's, too."""
        try:
            count = len(trial.problems)
        except (StoreError, OSError):
            return False
        known = self._problems.get(trial.path, 0)
        self._problems[trial.path] = count
        return count != known

    def _open(self) -> None:
        """Open the group, if there is one yet."""
        if is_address(self._place):
            with contextlib.suppress(NotARecordingError):
                self._group = open_group(self._place)
        elif Path(self._place).is_dir():
            self._group = open_group(self._place)
        self._version += self._group is not None


def _refresh_trial(trial: Trial) -> bool:
    try:  # also one that has ended: it may be resumed, or repaired
        before = trial.state
        return trial.refresh() or trial.state != before
    except (StoreError, OSError):
        return False
