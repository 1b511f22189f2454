"""The writer of a trial whose group is remote."""

from __future__ import annotations

import os
from dataclasses import replace

from stepscope.store import lock
from stepscope.store.claim import IfExists
from stepscope.store.errors import UnreachableError
from stepscope.store.names import checked_trial_name
from stepscope.store.records import TrialEnd, TrialInfo
from stepscope.store.remote.claim import free_name
from stepscope.store.remote.folder import RemoteFolder
from stepscope.store.remote.mirror import INTERVAL, Mirror
from stepscope.store.remote.places import spool_folder
from stepscope.store.writer import TrialWriter

WAIT = 60.0
"""Seconds for which closing waits for the upload."""


class RemoteTrialWriter(TrialWriter):
    """Writes a trial into the local spool, as any trial is written, and mirrors it to an address meanwhile.

    >>> with RemoteTrialWriter("s3://bucket/runs", info) as writer:          # doctest: +SKIP
    ...     writer.write_step(record)

    Args:
        address: the group's address.
        info, if_exists: as for ``TrialWriter``. While the address does not answer, a trial with
            ``if_exists="number"`` is written all the same, and gets its place there later.
        interval: seconds between two uploads.
        wait: for how many seconds at most ``close`` waits until everything is uploaded.

    Raises:
        UnreachableError: the address does not answer, and ``if_exists`` must know what is there.
    """

    _mirror: Mirror | None = None

    def __init__(
        self,
        address: str,
        info: TrialInfo,
        *,
        if_exists: IfExists = "number",
        interval: float = INTERVAL,
        wait: float = WAIT,
    ) -> None:
        self._remote, self._wait = RemoteFolder(address), wait
        name, unreachable = checked_trial_name(info.trial), None
        try:
            name = free_name(self._remote, name, if_exists)
        except UnreachableError as error:
            if if_exists != "number":
                raise
            unreachable = error
        super().__init__(spool_folder(address), replace(info, trial=name), if_exists="number")
        if unreachable is not None:
            self.troubles.append(unreachable)
        self._mirror = Mirror(self.path, self._remote, self.troubles.append, interval=interval)

    def close(self, end: TrialEnd | None) -> None:
        try:
            super().close(end)
        finally:
            mirror, self._mirror = self._mirror, None
            if mirror is not None and os.getpid() == self._process:
                self._finish(mirror)

    def _finish(self, mirror: Mirror) -> None:
        """With the lock taken once more: until the rest is uploaded, no other process needs to care for it."""
        lock.take(self.path)
        try:
            mirror.close(self._wait)
        finally:
            lock.release(self.path)
