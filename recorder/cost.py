"""What recording has cost so far, measured while it goes on."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median, median_low

_FRESH = 16
"""For how many plain steps a sum of costs is good enough."""

_REMEMBERED = 64
"""Of how many steps of each kind the durations are kept; medians of these are robust against the odd slow one."""


@dataclass(frozen=True)
class Cost:
    """What recording has cost.

    Attributes:
        steps, recorded: how many steps there were, and how many of them were recorded.
        seconds: of training time that recording took, all in all.
        share: of the time since the first step, from 0 to 1, what ``seconds`` and ``writing`` are together: as if the
            writer's thread had no core of its own.
        bytes: written to disk.
        waiting: seconds that training waited because too much was to be written; they are part of ``seconds``.
        is_lower_bound: whether there was no unrecorded step to compare with, so that only the work at the ends of
            steps could be counted.
        writing: seconds of processor time of the writer's thread, which measures and writes beside training.
    """

    steps: int
    recorded: int
    seconds: float
    share: float
    bytes: int
    waiting: float
    is_lower_bound: bool
    writing: float = 0.0


@dataclass
class _Durations:
    """Seconds from the start of a step to the start of the next one, of the recorder's work at a step's end, and of the
    writer's thread."""

    recorded: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    plain: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    finishing: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    writing: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    def of_a_recording(self) -> float:
        """How much longer a recorded step takes than a plain one; at least what its end takes."""
        least = median(self.finishing) if self.finishing else 0.0
        if not self.recorded or not self.plain:
            return least
        return max(least, median_low(self.recorded) - median(self.plain))

    def of_writing(self) -> float:
        """How long the writer's thread works on a step. Of two the shorter: the first one is not warm yet."""
        return median_low(list(self.writing)) if self.writing else 0.0


class CostMeter:
    """Compares recorded steps with unrecorded ones of the same kind: two readings of the clock a step.

    Args:
        clock: gives seconds; another one in tests.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self._first: float | None = None
        self._open: tuple[float, str, bool] | None = None
        self._durations: dict[str, _Durations] = {}
        self._steps = 0
        self._recorded: Counter[str] = Counter()
        self._seconds = 0.0
        self._writing = 0.0
        self._fresh_until = 0
        self._has_timed = False

    def step_begins(self, kind: str, *, recorded: bool) -> None:
        """A step of this kind begins, and with it the one before ends."""
        now = self.clock()
        if self._first is None:
            self._first = now
        if self._open is not None:
            started, last_kind, was_recorded = self._open
            durations = self._of(last_kind)
            (durations.recorded if was_recorded else durations.plain).append(now - started)
        self._has_timed = self._open is not None and not self._open[2]
        self._open = now, kind, recorded
        self._steps += 1
        if recorded:
            self._recorded[kind] += 1
            self._fresh_until = 0

    def has_timed(self, kind: str) -> bool:
        """Whether enough plain steps of this kind were timed, the last step among them, to let some go by."""
        return self._has_timed and len(self._of(kind).plain) >= _FRESH

    def steps_passed(self, steps: int) -> None:
        """So many more unrecorded steps went by; when they and the one that is open ended was not looked at."""
        self._steps += steps
        self._open = None

    def step_finished(self, kind: str, seconds: float) -> None:
        """The recorder's work at the end of a recorded step took this long."""
        self._of(kind).finishing.append(seconds)
        self._fresh_until = 0

    def step_written(self, kind: str, seconds: float) -> None:
        """The writer's thread worked so long on a recorded step, in processor time; called on that thread."""
        self._of(kind).writing.append(seconds)
        self._writing += seconds

    @property
    def elapsed(self) -> float:
        """Seconds since the first step began."""
        return 0.0 if self._first is None else self.clock() - self._first

    def seconds(self) -> float:
        """Seconds that recording has cost so far; computed again after some steps only, as schedules ask each time."""
        if self._steps >= self._fresh_until:
            self._fresh_until = self._steps + _FRESH
            self._seconds = sum(number * self._of(kind).of_a_recording() for kind, number in self._recorded.items())
        return self._seconds

    def total(self) -> float:
        """Seconds of training time and of the writer's thread together."""
        return self.seconds() + self._writing

    def next_recording(self, kind: str) -> float:
        """What recording one more step of this kind is expected to cost, in seconds: the mean of those so far."""
        recorded = self._recorded.total()
        return self.total() / recorded if recorded else 0.0

    def share_of_one(self, kind: str) -> float:
        """What recording a step of this kind costs, with its writing, in plain steps; 0 while that is not known."""
        durations = self._of(kind)
        if not durations.plain:
            return 0.0
        return (durations.of_a_recording() + durations.of_writing()) / max(median(durations.plain), 1e-9)

    def cost(self, *, written: int = 0, waiting: float = 0.0) -> Cost:
        """All of it. ``written`` and ``waiting`` are known elsewhere."""
        seconds, elapsed = self.seconds(), self.elapsed
        blind = any(not self._of(kind).plain for kind in self._recorded)
        share = min(1.0, (seconds + self._writing) / elapsed) if elapsed else 0.0
        return Cost(self._steps, self._recorded.total(), seconds, share, written, waiting, blind, self._writing)

    def _of(self, kind: str) -> _Durations:
        found = self._durations.get(kind)
        return found if found is not None else self._durations.setdefault(kind, _Durations())
