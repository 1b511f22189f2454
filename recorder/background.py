"""The writer's thread: makes records of finished steps and gives them to the store, out of training's way."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable

_WAITING_JOBS = 8
"""From how many waiting jobs on training waits for the thread, as long as it has patience."""

_Job = Callable[[], object]


class Background:
    """Runs jobs in order on one daemon thread. The first fault of each kind is kept for the training thread.

    How many jobs may wait is for those who submit them to know: they hold the memory.
    """

    def __init__(self, on_fault: Callable[[Exception], None]) -> None:
        self._on_fault = on_fault
        self._jobs: deque[tuple[_Job | None, bool]] = deque()
        self._whole = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._process = os.getpid()

    def submit(self, job: _Job, *, part: bool = False) -> None:
        """Let a job be run. Nobody waits for those that are a ``part`` of one that is still to come."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="stepscope-writer", daemon=True)
            self._thread.start()
        self._put(job, part=part)

    def wait_for_others(self, seconds: float) -> float:
        """Wait while many jobs are waiting, so that a recording is never far behind; returns how long that took."""
        started = time.perf_counter()
        with self._changed:
            self._changed.wait_for(lambda: self._whole < _WAITING_JOBS, seconds)
        return time.perf_counter() - started

    def flush(self) -> None:
        """Wait until every job given so far is done."""
        if self._thread is not None and self._thread.is_alive():
            done = threading.Event()
            self._put(done.set)
            done.wait()

    def close(self) -> None:
        """Finish all jobs and end the thread."""
        if self._thread is not None and self._thread.is_alive() and os.getpid() == self._process:
            self._put(None)
            self._thread.join()
        self._thread = None

    def _put(self, job: _Job | None, *, part: bool = False) -> None:
        with self._changed:
            self._jobs.append((job, part))
            self._whole += not part
            self._changed.notify_all()

    def _next(self) -> _Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._jobs)
            job, part = self._jobs.popleft()
            self._whole -= not part
            self._changed.notify_all()
            return job

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                job()
            except Exception as error:
                self._on_fault(error)
            del job  # and what it holds: the next one may be long in coming
