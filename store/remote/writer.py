"""The writer of a trial whose group is remote."""

from __future__ import annotations

import os
from dataclasses import replace

from stepscope.store import lock
from stepscope.store.claim import IfExists
from stepscope.store.errors import UnreachableError
from stepscope.store.names import checked_trial_name
from stepscope.store.records import Precision, TrialEnd, TrialInfo
from stepscope.store.remote.folder import RemoteFolder
from stepscope.store.remote.mirror import Mirror
from stepscope.store.remote.places import spool_folder
from stepscope.store.remote.prepare import may_wait, prepare
from stepscope.store.room import Limits
from stepscope.store.writer import TrialWriter

WAIT = 60.0
"""Seconds for which closing waits for the upload."""


class RemoteTrialWriter(TrialWriter):
    """Writes a trial into the local spool, as any trial is written, and mirrors it to an address meanwhile.

    >>> with RemoteTrialWriter("s3://bucket/runs", info) as writer:          # doctest: +SKIP
    ...     writer.write_step(record)

    Args:
        address: the group's address.
        info, if_exists, resume, limits, precision: as for ``TrialWriter``. While the address does not answer, a new
            trial is written all the same if ``if_exists="number"``, and gets its place there later; so is one that is
            resumed, if it is still in the spool.
        interval: seconds between two uploads; 5 unless given.
        wait: for how many seconds at most ``close`` waits until everything is uploaded.

    Raises:
        UnreachableError: the address does not answer, and what is there has to be known.
    """

    _mirror: Mirror | None = None

    def __init__(
        self,
        address: str,
        info: TrialInfo,
        *,
        if_exists: IfExists = "number",
        resume: bool = False,
        limits: Limits | None = None,
        precision: Precision = "float32",
        interval: float | None = None,
        wait: float = WAIT,
    ) -> None:
        remote, spool, name, troubles = RemoteFolder(address), spool_folder(address), info.trial, []
        self._wait = wait
        try:
            name = prepare(remote, spool, checked_trial_name(name), if_exists, resume)
        except UnreachableError as error:
            if not may_wait(spool / name, if_exists, resume):
                raise
            troubles.append(error)
        super().__init__(spool, replace(info, trial=name), resume=resume, limits=limits, precision=precision)
        self.troubles.extend(troubles)
        self._mirror = Mirror(self.path, remote, self.troubles.append, interval=interval)

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
