"""The thread that uploads a trial while it is being written. What fails there never stops the writing."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from stepscope.store.errors import StoreError, TrialInUseError, UnreachableError
from stepscope.store.group import is_trial
from stepscope.store.remote.claim import claim
from stepscope.store.remote.folder import RemoteFolder
from stepscope.store.remote.spool import remove_uploaded, spooled_beside
from stepscope.store.remote.transfer import upload_trial
from stepscope.store.remote.uploader import Uploader

INTERVAL = 5.0
"""Seconds between two uploads: so far is a reader behind."""
_LONGEST_PAUSE = 60.0


class Mirror:
    """Uploads one local trial again and again until it is closed, then once more, then removes it here.

    Args:
        trial: the local folder.
        remote: where its group is to be.
        on_trouble: told of the first failure of several in a row, on the mirror's thread.
        interval: seconds between uploads; ``INTERVAL`` unless given.
    """

    def __init__(
        self,
        trial: Path,
        remote: RemoteFolder,
        on_trouble: Callable[[Exception], None],
        *,
        interval: float | None = None,
    ) -> None:
        self._trial = trial
        self._remote = remote
        self._on_trouble = on_trouble
        self._interval = INTERVAL if interval is None else interval
        self._uploader: Uploader | None = None
        self._failures = 0
        self._deadline = 0.0
        self._closing = threading.Event()
        self._rests: threading.Thread | None = None
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._run, name="stepscope-mirror", daemon=True)
        self._thread.start()

    def close(self, wait: float) -> None:
        """Upload what waits, for at most so many seconds; what is left stays in the spool."""
        if os.getpid() != self._process or self._closing.is_set():
            return
        self._deadline = time.monotonic() + wait
        self._closing.set()
        self._thread.join(wait + 1)
        if self._rests is not None:
            self._rests.join(max(0.0, self._deadline - time.monotonic()))
        if is_trial(self._trial):
            self._on_trouble(
                UnreachableError(
                    f"the end of {self._trial.name!r} is not at {self._remote.address} yet; it is kept here: "
                    f"stepscope upload {self._trial} {self._remote.address}"
                )
            )

    def _run(self) -> None:
        while True:
            last = self._closing.wait(self._pause() if self._uploader or self._failures else 0)
            done = self._try(last)
            if done and (last or self._uploader is None):
                return
            if last and time.monotonic() + self._pause() > self._deadline:
                return
            if last:
                time.sleep(self._pause())

    def _pause(self) -> float:
        if not self._failures:
            return self._interval
        longest = _LONGEST_PAUSE if not self._closing.is_set() else self._interval
        return min(self._interval * 2.0 ** min(self._failures - 1, 30), longest)

    def _try(self, last: bool) -> bool:
        """One upload; whether it went well, or can never."""
        try:
            if self._uploader is None:
                self._uploader = Uploader(self._trial, self._remote, *claim(self._remote, self._trial))
            self._uploader.upload(last=last)
            if self._rests is None:
                self._rests = threading.Thread(target=self._upload_rests, name="stepscope-rests", daemon=True)
                self._rests.start()
        except TrialInUseError as error:
            self._uploader = None
            self._on_trouble(error)
            return True
        except Exception as error:
            if not self._failures and not last:
                self._on_trouble(error)
            self._failures += 1
            return False
        self._failures = 0
        if last:
            remove_uploaded(self._trial)
        return True

    def _upload_rests(self) -> None:
        """Upload what recorders that died have left in the same spool."""
        for other in spooled_beside(self._trial):
            with contextlib.suppress(StoreError, OSError):
                upload_trial(other, self._remote)
