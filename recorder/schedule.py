"""Which steps are recorded: schedules, which answer one question for one kind of step."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import InitVar, dataclass, field
from typing import Any, Protocol, runtime_checkable

from stepscope.recorder.cost import CostMeter
from stepscope.recorder.errors import RecorderError

_PLAIN_STEPS = 4
_FOR_EVER = 1 << 30


@runtime_checkable
class Schedule(Protocol):
    """Anything with ``wants(number, kind, seen)``.

    Args of ``wants``: the number of the step (from 0, over all kinds), its kind, and how many steps of this kind
    came before it. Returns whether the step is recorded.
    """

    def wants(self, number: int, kind: str, seen: int) -> bool: ...


@runtime_checkable
class Foreseeing(Protocol):
    """A schedule that knows how many steps it does not want, so that it need not be asked for each of them.

    Args of ``unwanted``: as of ``wants``. Returns how many steps, this one first, are not wanted if they are all of
    this kind; 0 if that is not known.
    """

    def unwanted(self, number: int, kind: str, seen: int) -> int: ...


@runtime_checkable
class Metered(Protocol):
    """A schedule that wants to know what recording costs."""

    def bind(self, meter: CostMeter) -> None: ...


@dataclass(frozen=True)
class Every:
    """Record the first step of each kind and then every ``interval``-th of that kind.

    >>> [n for n in range(7) if Every(3).wants(n, "train", n)]
    [0, 3, 6]

    ``Every("1%")`` is a budget: as many steps as recording may take of the training's time (see ``Budget``).
    ``Every(100, at_most="2%")`` is both: every hundredth step, or fewer of them if that were too much (``Thinned``).
    """

    interval: int | str
    at_most: InitVar[str | None] = None

    def __new__(cls, interval: int | str, at_most: str | None = None) -> Any:
        if isinstance(interval, str):
            return Budget(_share(interval))
        if at_most is not None:
            return Thinned(Every(interval), _share(at_most))
        return super().__new__(cls)

    def __post_init__(self, at_most: str | None) -> None:
        if isinstance(self.interval, bool) or not isinstance(self.interval, int) or self.interval < 1:
            raise RecorderError(f"Every({self.interval!r}): expected a whole number of steps, 1 or more")

    def wants(self, number: int, kind: str, seen: int) -> bool:
        return seen % int(self.interval) == 0

    def unwanted(self, number: int, kind: str, seen: int) -> int:
        return -seen % int(self.interval)


def _share(text: object) -> float:
    try:
        share = float(text[:-1]) / 100 if isinstance(text, str) and text.endswith("%") else math.nan
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise RecorderError(f"Every({text!r}): expected a whole number of steps, or a share such as '1%'")
    return share


@dataclass
class Thinned:
    """Every ``interval``-th step of each kind, or every second, fourth, eighth, ... of those.

    That is how often recording, and the writer's thread beside training, take no more than ``share`` of the time. The
    first two that are due are recorded in any case, so that there is something to look at, and so that the costs are
    known; the third waits until they are paid for. Different runs of the same training mostly have the same steps,
    which can be compared.

    >>> Every(100, at_most="2%")
    Thinned(every=Every(interval=100), share=0.02)

    Args:
        every: the steps that are due.
        share: of the time, from 0 to 1.
    """

    every: Every
    share: float
    _meter: CostMeter | None = field(default=None, init=False, repr=False, compare=False)

    def bind(self, meter: CostMeter) -> None:
        """Take the costs from here."""
        self._meter = meter

    def wants(self, number: int, kind: str, seen: int) -> bool:
        turn, rest = divmod(seen, int(self.every.interval))
        return rest == 0 and (turn < 2 or (turn % self._stride(kind) == 0 and self._affords_one(kind)))

    def unwanted(self, number: int, kind: str, seen: int) -> int:
        return self.every.unwanted(number, kind, seen)

    def _affords_one(self, kind: str) -> bool:
        """Whether the first two, which were not asked what they cost, are paid for."""
        return self._meter is None or self._meter.affords_one(kind, self.share)

    def _stride(self, kind: str) -> int:
        """How many times as rare as is due: the least power of two that keeps the share."""
        if self._meter is None:
            return 1
        needed = self._meter.share_of_one(kind) / (self.share * int(self.every.interval))
        return 1 << math.ceil(math.log2(max(1.0, needed)))


@dataclass
class Budget:
    """Record the first step of each kind, and then as often as a share of the training's time allows.

    What a recording costs is measured while training runs (``recorder.cost()``).

    Args:
        share: of the time since the first step, from 0 to 1.
    """

    share: float
    _meter: CostMeter | None = field(default=None, init=False, repr=False)

    def bind(self, meter: CostMeter) -> None:
        """Take the costs from here."""
        self._meter = meter

    def wants(self, number: int, kind: str, seen: int) -> bool:
        if seen == 0 or self._meter is None:
            return True
        if seen < _PLAIN_STEPS:
            return False  # to know what a plain step takes
        return self._meter.affords_one(kind, self.share)


@dataclass
class Backoff:
    """Record with growing gaps: the gap to the next recording is multiplied by ``factor`` after each one.

    Each kind has its own count, so that a rare kind of step is still seen early.

    >>> schedule = Backoff(2, factor=2.0)
    >>> [n for n in range(20) if schedule.wants(n, "train", n)]
    [0, 2, 6, 14]
    """

    interval: int
    factor: float = 1.1
    _next: dict[str, tuple[int, float]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not _is_number(self.interval) or not _is_number(self.factor) or self.interval < 1 or self.factor < 1:
            raise RecorderError(
                f"Backoff({self.interval!r}, factor={self.factor!r}): expected an interval and a factor of 1 or more"
            )

    def wants(self, number: int, kind: str, seen: int) -> bool:
        due, gap = self._next.get(kind, (0, float(self.interval)))
        if seen < due:
            return False
        self._next[kind] = (seen + max(1, round(gap)), gap * self.factor)
        return True

    def unwanted(self, number: int, kind: str, seen: int) -> int:
        return max(0, self._next.get(kind, (0, 0.0))[0] - seen)


@dataclass(frozen=True)
class Steps:
    """Record exactly the steps with these numbers.

    >>> Steps({0, 10}).wants(10, "train", 3)
    True
    """

    numbers: frozenset[int]
    _in_order: list[int] = field(init=False, repr=False, compare=False)

    def __init__(self, numbers: Iterable[int]) -> None:
        if not isinstance(numbers, Iterable) or isinstance(numbers, str):
            raise RecorderError(f"Steps({numbers!r}): expected the numbers of steps, such as Steps({{0, 10}})")
        kept = frozenset(numbers)
        if not all(isinstance(number, int) and not isinstance(number, bool) for number in kept):
            raise RecorderError(f"Steps({numbers!r}): expected whole numbers")
        object.__setattr__(self, "numbers", kept)
        object.__setattr__(self, "_in_order", sorted(kept))

    def wants(self, number: int, kind: str, seen: int) -> bool:
        return number in self.numbers

    def unwanted(self, number: int, kind: str, seen: int) -> int:
        place = bisect_left(self._in_order, number)
        return self._in_order[place] - number if place < len(self._in_order) else _FOR_EVER


@dataclass(frozen=True)
class PerKind:
    """One schedule a kind; kinds that are not named follow ``default``, or are not recorded without one.

    A plain dict does the same: ``schedule={"train": Every(100), "test": Every(1)}``; its key ``"*"`` is the default.
    """

    kinds: Mapping[str, Schedule]
    default: Schedule | None = None

    def bind(self, meter: CostMeter) -> None:
        """Pass the costs on to those that want to know them."""
        for schedule in (*self.kinds.values(), self.default):
            if isinstance(schedule, Metered):
                schedule.bind(meter)

    def wants(self, number: int, kind: str, seen: int) -> bool:
        schedule = self.kinds.get(kind, self.default)
        return schedule is not None and schedule.wants(number, kind, seen)

    def unwanted(self, number: int, kind: str, seen: int) -> int:
        schedule = self.kinds.get(kind, self.default)
        if schedule is None:
            return _FOR_EVER
        return schedule.unwanted(number, kind, seen) if isinstance(schedule, Foreseeing) else 0


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def as_schedule(given: Schedule | Mapping[str, Schedule] | int | str) -> Schedule:
    """A schedule from what a user may give: one, a dict of them per kind, a plain interval, or a share ("1%")."""
    if isinstance(given, Mapping):
        kinds = {kind: as_schedule(schedule) for kind, schedule in given.items() if kind != "*"}
        return PerKind(kinds, as_schedule(given["*"]) if "*" in given else None)
    if isinstance(given, str) and given.endswith("%"):
        return Budget(_share(given))
    if isinstance(given, int) and not isinstance(given, bool):
        return Every(given)
    if isinstance(given, Schedule):
        return given
    raise RecorderError(
        f"schedule={given!r}: expected Every(n), Every('1%'), Backoff(n), Steps({{...}}), a dict of these per kind, "
        "or an object with wants(number, kind, seen)"
    )
