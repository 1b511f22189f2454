"""Says what the recording lacks because the writer was behind: one warning a cause, and messages in the recording."""

from __future__ import annotations

from stepscope.recorder.guard import Faults
from stepscope.recorder.sizes import as_text

_WHY = "the writer is behind (a slow disk, or more steps than it can write)"


class Shortfall:
    """Keeps count of the steps that were skipped, until somebody can be told."""

    def __init__(self, faults: Faults, limit: int) -> None:
        self._faults = faults
        self._limit = f"{as_text(limit)} of memory (max_memory)"
        self._skipped: list[int] = []

    def without_detail(self, number: int) -> None:
        """A step lost its neurons and samples; the step itself says so, too."""
        text = (
            f"{_WHY}: from step {number} on, steps may lack neurons and samples, as there is no room in {self._limit}"
        )
        self._faults.warn(text, cause="without detail")

    def skipped(self, number: int) -> None:
        """A step is not recorded at all."""
        self._skipped.append(number)
        text = f"{_WHY}: step {number} is not recorded, as not even its statistics have room in {self._limit}"
        self._faults.warn(text, cause="skipped")

    def lost_points(self) -> None:
        """Points of curves, or a note, are lost."""
        self._faults.warn(f"{_WHY}: points of curves are lost, as there is no room in {self._limit}", cause="points")

    def told(self) -> str:
        """What is to be said of the steps skipped since the last time, in the recording; mostly nothing."""
        steps, self._skipped = self._skipped, []
        if not steps:
            return ""
        which = f"step {steps[0]} was" if len(steps) == 1 else f"{len(steps)} steps from {steps[0]} to {steps[-1]} were"
        return f"{which} not recorded: the writer was behind, and {self._limit} were full"
