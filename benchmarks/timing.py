"""Times several ways of doing the same work side by side, so that what slows the machine slows all of them."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True)
class Contender:
    """One way: ``run`` is timed, ``drain`` waits until whatever it left to other threads is done."""

    name: str
    run: Callable[[], None]
    drain: Callable[[], None] = lambda: None
    bytes_on_disk: Callable[[], int] = lambda: 0
    close: Callable[[], None] = lambda: None


class Sample(NamedTuple):
    """Seconds: of the wall clock, of the training thread's processor time, of all threads' until all is drained."""

    wall: float
    thread: float
    process: float


@dataclass
class Times:
    """All samples of one contender."""

    samples: list[Sample] = field(default_factory=list)

    def median(self, clock: str = "wall") -> float:
        return statistics.median(getattr(sample, clock) for sample in self.samples)

    def least(self, clock: str = "wall") -> float:
        return min(getattr(sample, clock) for sample in self.samples)


def measure(contender: Contender) -> Sample:
    """Run it once. The collector of garbage runs before, not within."""
    contender.drain()
    gc.collect()
    process = time.process_time()
    wall, thread = time.perf_counter(), time.thread_time()
    contender.run()
    wall, thread = time.perf_counter() - wall, time.thread_time() - thread
    contender.drain()
    return Sample(wall, thread, time.process_time() - process)


def interleave(contenders: Sequence[Contender], rounds: int, *, warm_up: int = 3) -> dict[str, Times]:
    """Time all contenders ``rounds`` times, in another order each round."""
    order = random.Random(0)
    times = {contender.name: Times() for contender in contenders}
    for number in range(warm_up + rounds):
        for contender in order.sample(list(contenders), len(contenders)):
            sample = measure(contender)
            if number >= warm_up:
                times[contender.name].samples.append(sample)
    return times


def ratio(times: dict[str, Times], name: str, to: str, clock: str = "wall") -> float:
    """How many times as long ``name`` takes as ``to``: the median over the rounds of the ratio within a round."""
    pairs = zip(times[name].samples, times[to].samples, strict=True)
    return statistics.median(getattr(one, clock) / getattr(other, clock) for one, other in pairs)
