"""The sign of life of a writer, for those who cannot see its process."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from stepscope.store import lock
from stepscope.store.errors import TrialInUseError


class Heartbeat:
    """Touches the lock of a trial that this process holds, every ``lock.BEAT`` seconds, from ``start`` to ``stop``.

    A forked process has no thread to do so: it does not keep its parent's lock alive.
    """

    def __init__(self, trial: Path) -> None:
        self._trial = trial
        self._path = trial / lock.LOCK_NAME
        self._own = lock.owner_of(trial)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, if it has not begun yet."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="stepscope-heartbeat", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._stop.set()

    @property
    def is_lost(self) -> bool:
        """Whether another process has taken the trial over, because this one was thought to be dead."""
        return lock.owner_of(self._trial) not in (None, self._own)

    def check(self) -> None:
        """Raise ``TrialInUseError`` if another process has taken the trial over."""
        if self.is_lost:
            owner = lock.owner_of(self._trial) or {}
            raise TrialInUseError(
                f"{self._trial} was taken over by process {owner.get('pid')} on {owner.get('host')} while this one was "
                "silent; what this process records from now on is lost"
            )

    def _run(self) -> None:
        while not self._stop.wait(lock.BEAT):
            with contextlib.suppress(OSError):
                if lock.owner_of(self._trial) == self._own:
                    os.utime(self._path)
