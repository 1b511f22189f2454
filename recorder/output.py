"""What a recorder writes, on the writer's thread; what fails there is told on the training thread."""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from stepscope.recorder.assemble import assemble
from stepscope.recorder.background import Background
from stepscope.recorder.cost import CostMeter
from stepscope.recorder.guard import Faults
from stepscope.recorder.job import StepJob
from stepscope.recorder.memory import Memory, Rank
from stepscope.recorder.scalars import Point, read
from stepscope.recorder.shortfall import Shortfall
from stepscope.recorder.spectral import SpectralNorms
from stepscope.store import TrialWriter
from stepscope.store.records import ModuleInfo, Note, TrialEnd

_LOOK_EVERY = 4
"""After how many steps the room that is left is computed again."""

_POINT_BYTES = 512
_TEXT_BYTES = 256
"""What a point of a curve, and a note besides its letters, take while they wait."""


class TrialOutput:
    """One trial on its way to the disk; every call returns at once, unless too much is waiting.

    What waits is held in ``memory``: when that is full, a step loses its detail, then itself. ``written`` counts the
    bytes of its steps; ``steps_left`` is for how many more there is room, None without a limit.
    """

    def __init__(self, writer: TrialWriter, faults: Faults, memory: Memory, meter: CostMeter) -> None:
        self._writer = writer
        self._meter = meter
        self._faults = faults
        self._memory = memory
        self._shortfall = Shortfall(faults, memory.limit)
        self._norms = SpectralNorms()
        self._failed: deque[Exception] = deque(maxlen=64)
        self._background = Background(self._failed.append)
        self._network: tuple[ModuleInfo, ...] = ()
        self.written = 0
        self.steps_left = writer.steps_left()
        self._steps = 0
        self._ahead_seconds = 0.0

    @property
    def waited(self) -> float:
        """Seconds that training waited for the writer's thread."""
        return self._memory.waited

    @property
    def path(self) -> Path:
        return Path(self._writer.path)

    @property
    def name(self) -> str:
        return self._writer.name

    def ahead(self, work: Callable[[], object]) -> None:
        """Let a part of a step's work be done while the step is still under way."""
        self._background.submit(partial(self._work_ahead, work), part=True)

    def _work_ahead(self, work: Callable[[], object]) -> None:
        started = time.thread_time()
        try:
            work()
        finally:
            self._ahead_seconds += time.thread_time() - started

    def step(self, job: StepJob) -> None:
        """Let a step be written; waits a little if many are waiting, and leaves it out if it has no room."""
        held = job.held
        if held.is_lost or not held.take(job.bytes_of_structure, Rank.STATISTICS):
            held.release()
            self._shortfall.skipped(job.number)
            return
        if not held.is_complete:
            self._shortfall.without_detail(job.number)
        if skipped := self._shortfall.told():
            self.message(skipped, job.number)
        self._memory.waited += self._background.wait_for_others(held.patience)
        self._background.submit(lambda: self._write_step(job))

    def _write_step(self, job: StepJob) -> None:
        started = time.thread_time()
        try:
            record = assemble(job, self._norms)
            self._failed.extend(job.measured.faults)
            self.written += self._writer.write_step(record)
            if self._steps % _LOOK_EVERY == 0:
                self.steps_left = self._writer.steps_left()
            self._steps += 1
        finally:
            job.held.release()
            self._meter.step_written(job.kind, time.thread_time() - started + self._ahead_seconds)
            self._ahead_seconds = 0.0

    def scalars(self, points: Sequence[Point]) -> None:
        """Let points of curves be written."""
        if points:
            write = self._writer.write_scalars
            self._submit(lambda: write([read(point) for point in points]), _POINT_BYTES * len(points))

    def note(self, note: Note) -> None:
        """Let a note be written."""
        self._submit(lambda: self._writer.write_note(note), _TEXT_BYTES + 4 * len(note.text))

    def _submit(self, job: Callable[[], object], size: int) -> None:
        """Let a small thing be written, if there is room for it; it does not wait."""
        if not self._memory.take(size, Rank.STATISTICS):
            self._shortfall.lost_points()
            return

        def run() -> None:
            try:
                job()
            finally:
                self._memory.give_back(size)

        self._background.submit(run)

    def network(self, modules: tuple[ModuleInfo, ...]) -> None:
        """Write the module tree, if it is another than the last one."""
        if modules != self._network:
            self._network = modules
            self._background.submit(lambda: self._writer.write_network(modules))

    def rewind(self, step: int) -> None:
        """Write that what was recorded from this step on is superseded."""
        self._background.submit(lambda: self._writer.rewind(step))

    def message(self, text: str, step: int) -> None:
        self._background.submit(lambda: self._writer.write_message(text, step))

    def complain(self) -> None:
        """Tell of what failed on the thread since the last call; raises it if the recorder is strict."""
        while self._failed:
            self._faults.report(self._failed.popleft(), "writing")
        while self._writer.troubles:
            self._faults.report(self._writer.troubles.popleft(), "uploading")

    def flush(self) -> None:
        """Wait until everything given so far is on disk."""
        self._background.flush()
        self.complain()

    def close(self, error: BaseException | None) -> None:
        """Write what waits, and how the trial ended."""
        with ExitStack() as afterwards:  # also if something fails before
            afterwards.callback(self.complain)
            afterwards.callback(self._writer.close, _end(error))
            afterwards.callback(self._background.close)
            if skipped := self._shortfall.told():
                self.message(skipped, 0)


def _end(error: BaseException | None) -> TrialEnd:
    if error is None or (isinstance(error, SystemExit) and not error.code):
        return TrialEnd("finished", time.time())
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return TrialEnd("failed", time.time(), f"{type(error).__name__}: {error}", text)
