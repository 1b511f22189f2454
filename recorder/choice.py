"""Which steps are recorded: those that the schedule wants, as long as the recording has room."""

from __future__ import annotations

from collections import Counter

from stepscope.recorder.cost import CostMeter
from stepscope.recorder.guard import Faults
from stepscope.recorder.schedule import Foreseeing, Metered, Schedule
from stepscope.recorder.sizes import as_text
from stepscope.recorder.stretch import Stretch


class Choice:
    """Asks the schedule for each step, and counts the steps of each kind for it.

    Args:
        schedule: decides.
        meter: what recording costs, for schedules that want to know.
        faults: is told when there is too little room for what the schedule wants.
        max_bytes: the limit of the trial, or None.
    """

    def __init__(self, schedule: Schedule, meter: CostMeter, faults: Faults, max_bytes: int | None) -> None:
        self._schedule = schedule
        self._stretch = Stretch(faults, f"{as_text(max_bytes or 0)} (max_bytes)")
        self._seen: Counter[str] = Counter()
        if isinstance(schedule, Metered):
            schedule.bind(meter)

    def wants(self, number: int, kind: str, left: float | None) -> bool:
        """Whether a step is recorded, if there is room for so many more (None: no limit)."""
        seen = self._seen[kind]
        self._seen[kind] = seen + 1
        return self._schedule.wants(number, kind, seen) and self._stretch.allows(number, kind, left)

    def has_room(self, number: int, left: float | None) -> bool:
        """Whether a step that the schedule does not want, but an alarm, can be recorded."""
        return self._stretch.has_room(number, left)

    def unwanted(self, number: int, kind: str) -> int:
        """How many steps from this one on are surely not recorded, as long as they are of this kind."""
        if not isinstance(self._schedule, Foreseeing):
            return 0
        return self._schedule.unwanted(number, kind, self._seen[kind])

    def passed(self, kind: str, steps: int) -> None:
        """So many steps have passed without a question."""
        self._seen[kind] += steps
