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

_AFTER = 16
"""For so many steps, the recorded one first, what recording takes is looked for: while the writer's thread measures and
writes, training shares caches and the interpreter's lock with it. A dozen steps of 2 ms were a third slower then."""


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


def _times() -> deque[float]:
    return deque(maxlen=_REMEMBERED)


@dataclass
class _Durations:
    """Seconds from the start of a step to the start of the next one.

    Attributes:
        recorded: of recorded steps.
        soon: of unrecorded ones soon after a recorded one.
        plain: of all others.
        stretches: of a recorded step and those soon after it, and how many these are together.
        finishing: of the recorder's work at a step's end.
        writing: of processor time of the writer's thread.
    """

    recorded: deque[float] = field(default_factory=_times)
    soon: deque[float] = field(default_factory=_times)
    plain: deque[float] = field(default_factory=_times)
    stretches: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    finishing: deque[float] = field(default_factory=_times)
    writing: deque[float] = field(default_factory=_times)

    @property
    def is_blind(self) -> bool:
        """Whether there is no unrecorded step to compare with."""
        return not self.plain and not self.soon

    def of_a_plain_step(self) -> float:
        """How long a step takes that is not recorded."""
        return median(self.plain or self.soon)

    def of_a_recording(self) -> float:
        """How much longer training takes if a step is recorded; at least what the end of the step takes.

        Of two the shorter: the first one is not warm yet.
        """
        least = median(self.finishing) if self.finishing else 0.0
        if not self.recorded or self.is_blind:
            return least
        plain = self.of_a_plain_step()
        if self.plain and self.stretches:
            return max(least, median_low(taken - steps * plain for taken, steps in self.stretches))
        return max(least, median_low(taken - plain for taken in self.recorded))

    def of_writing(self) -> float:
        """How long the writer's thread works on a step."""
        return median_low(list(self.writing)) if self.writing else 0.0


class CostMeter:
    """Compares recorded steps with unrecorded ones of the same kind: two readings of the clock a step.

    Args:
        clock: gives seconds; another one in tests.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self._first: float | None = None
        self._open: tuple[float, str, int] | None = None
        self._last_recorded: tuple[float, str] | None = None
        self._since = _AFTER
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
        self._end_step(now)
        self._end_stretch(now, kind, recorded)
        self._has_timed = self._open is not None and self._open[2] > 0
        self._since = 0 if recorded else self._since + 1
        self._open = now, kind, self._since
        self._steps += 1
        if recorded:
            self._last_recorded = now, kind
            self._recorded[kind] += 1
            self._fresh_until = 0

    def _end_step(self, now: float) -> None:
        if self._open is not None:
            started, kind, since = self._open
            durations = self._of(kind)
            times = durations.recorded if since == 0 else durations.soon if since < _AFTER else durations.plain
            times.append(now - started)

    def _end_stretch(self, now: float, kind: str, recorded: bool) -> None:
        """Take the time since the last recorded step, if only steps of its kind followed, and enough of them."""
        if self._last_recorded is None:
            return
        started, its_kind = self._last_recorded
        steps = self._since + 1
        if steps >= _AFTER:
            self._of(its_kind).stretches.append((now - started, steps))
        if steps >= _AFTER or recorded or kind != its_kind:
            self._last_recorded = None

    def has_timed(self, kind: str) -> bool:
        """Whether enough plain steps of this kind were timed, and the last step was, to let some go by."""
        return self._has_timed and len(self._of(kind).plain) >= _FRESH

    def steps_passed(self, steps: int) -> None:
        """So many more unrecorded steps went by; when they and the one that is open ended was not looked at."""
        self._steps += steps
        self._since += steps
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
        if durations.is_blind:
            return 0.0
        return (durations.of_a_recording() + durations.of_writing()) / max(durations.of_a_plain_step(), 1e-9)

    def affords_one(self, kind: str, share: float) -> bool:
        """Whether all recordings, and one more, take no more than this share of the time so far."""
        return self.total() + self.next_recording(kind) <= share * self.elapsed

    def cost(self, *, written: int = 0, waiting: float = 0.0) -> Cost:
        """All of it. ``written`` and ``waiting`` are known elsewhere."""
        elapsed = self.elapsed
        blind = any(self._of(kind).is_blind for kind in self._recorded)
        share = min(1.0, self.total() / elapsed) if elapsed else 0.0
        return Cost(self._steps, self._recorded.total(), self.seconds(), share, written, waiting, blind, self._writing)

    def _of(self, kind: str) -> _Durations:
        found = self._durations.get(kind)
        return found if found is not None else self._durations.setdefault(kind, _Durations())
