"""What a recorder writes, on the writer's thread; what fails there is told on the training thread."""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from stepscope.recorder.assemble import assemble
from stepscope.recorder.background import Background
from stepscope.recorder.guard import Faults
from stepscope.recorder.job import StepJob
from stepscope.recorder.scalars import Point, read
from stepscope.recorder.spectral import SpectralNorms
from stepscope.store import TrialWriter
from stepscope.store.records import ModuleInfo, Note, TrialEnd


class TrialOutput:
    """One trial on its way to the disk; every call returns at once, unless too much is waiting.

    ``written`` counts the bytes of its steps.
    """

    def __init__(self, writer: TrialWriter, faults: Faults) -> None:
        self._writer = writer
        self._faults = faults
        self._norms = SpectralNorms()
        self._failed: deque[Exception] = deque(maxlen=64)
        self._background = Background(self._failed.append)
        self._network: tuple[ModuleInfo, ...] = ()
        self.written = 0

    @property
    def waited(self) -> float:
        """Seconds that training waited for the writer's thread."""
        return self._background.waited

    @property
    def path(self) -> Path:
        return Path(self._writer.path)

    @property
    def name(self) -> str:
        return self._writer.name

    def step(self, job: StepJob) -> None:
        self._background.submit(lambda: self._write_step(job))

    def _write_step(self, job: StepJob) -> None:
        record = assemble(job, self._norms)
        self._failed.extend(job.measured.faults)
        self.written += self._writer.write_step(record)

    def scalars(self, points: Sequence[Point]) -> None:
        if points:
            self._background.submit(lambda: self._writer.write_scalars([read(point) for point in points]))

    def note(self, note: Note) -> None:
        self._background.submit(lambda: self._writer.write_note(note))

    def network(self, modules: tuple[ModuleInfo, ...]) -> None:
        """Write the module tree, if it is another than the last one."""
        if modules != self._network:
            self._network = modules
            self._background.submit(lambda: self._writer.write_network(modules))

    def message(self, text: str, step: int) -> None:
        self._background.submit(lambda: self._writer.write_message(text, step))

    def complain(self) -> None:
        """Tell of what failed on the thread since the last call; raises it if the recorder is strict."""
        while self._failed:
            self._faults.report(self._failed.popleft(), "writing")

    def flush(self) -> None:
        """Wait until everything given so far is on disk."""
        self._background.flush()
        self.complain()

    def close(self, error: BaseException | None) -> None:
        """Write what waits, and how the trial ended."""
        self._background.close()
        try:
            self._writer.close(_end(error))
        finally:
            self.complain()


def _end(error: BaseException | None) -> TrialEnd:
    if error is None or (isinstance(error, SystemExit) and not error.code):
        return TrialEnd("finished", time.time())
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return TrialEnd("failed", time.time(), f"{type(error).__name__}: {error}", text)
