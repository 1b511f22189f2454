"""The writer's thread: makes records of finished steps and gives them to the store, out of training's way."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable

_WAITING_JOBS = 8
"""How many jobs may wait; then the training thread waits too, so that memory stays bounded."""


class Background:
    """Runs jobs in order on one daemon thread. The first fault of each kind is kept for the training thread.

    ``waited`` is how many seconds jobs had to be waited for, all in all.
    """

    def __init__(self, on_fault: Callable[[Exception], None]) -> None:
        self._on_fault = on_fault
        self._jobs: queue.Queue[Callable[[], object] | None] = queue.Queue(_WAITING_JOBS)
        self._thread: threading.Thread | None = None
        self._process = os.getpid()
        self.waited = 0.0

    def submit(self, job: Callable[[], object]) -> None:
        """Let a job be run; waits while too many are waiting."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="stepscope-writer", daemon=True)
            self._thread.start()
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            started = time.perf_counter()
            self._jobs.put(job)
            self.waited += time.perf_counter() - started

    def flush(self) -> None:
        """Wait until every job given so far is done."""
        if self._thread is not None and self._thread.is_alive():
            done = threading.Event()
            self._jobs.put(done.set)
            done.wait()

    def close(self) -> None:
        """Finish all jobs and end the thread."""
        if self._thread is not None and self._thread.is_alive() and os.getpid() == self._process:
            self._jobs.put(None)
            self._thread.join()
        self._thread = None

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception as error:
                self._on_fault(error)
