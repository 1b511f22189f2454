"""Which recorded steps lose detail when a recording would become too large; only numbers, no files.

Raw neurons go first, then the statistics of neurons; nothing else ever goes. What is kept gets sparser the older it is:
the next step to lose something is the one whose neighbours are nearest to each other, measured by its age. The first
and the last step of each kind, and steps with a note, keep everything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepscope.store.left_out import Thinning

_WORTH = {Thinning.RAW: 1.0, Thinning.NEURONS: 4.0}
"""Statistics of neurons are kept four times as densely as raw values: they say more in fewer bytes."""


@dataclass(frozen=True)
class Kept:
    """What of a step's detail is on the disk, and where.

    Attributes:
        number, kind: of the step.
        part, offset: the file of its block, and where that was in it when the step was written.
        raw, neurons: the bytes of its raw values, and of the statistics of its neurons.
    """

    number: int
    kind: str
    part: int
    offset: int
    raw: int
    neurons: int

    def bytes_of(self, thinning: Thinning) -> int:
        """What this thinning, by itself, takes away."""
        return {Thinning.RAW: self.raw, Thinning.NEURONS: self.neurons}.get(thinning, 0)

    @property
    def place(self) -> tuple[int, int]:
        return self.part, self.offset


Plan = dict[tuple[int, int], Thinning]
"""What is to become of the steps that lose something, by ``Kept.place``."""


def thin_out(steps: Iterable[Kept], needed: int, noted: Collection[int] = ()) -> tuple[Plan, int]:
    """Choose what goes until that many bytes are free, or nothing more may go.

    Args:
        steps: all steps of the recording.
        needed: bytes.
        noted: numbers of steps that keep everything.

    Returns:
        The plan, and the bytes that it frees.
    """
    lines = [_Line(own, frozenset(noted)) for own in _by_kind(steps)]
    plan: Plan = {}
    freed = 0
    while freed < needed:
        best = min(lines, key=lambda line: line.score, default=None)
        if best is None or best.score == np.inf:
            break
        step, thinning = best.take()
        plan[step.place] = thinning
        freed += step.bytes_of(thinning)
    return plan, freed


def may_go(steps: Iterable[Kept], noted: Collection[int] = ()) -> int:
    """How many bytes could go at most."""
    return sum(line.may_go() for line in (_Line(own, frozenset(noted)) for own in _by_kind(steps)))


def _by_kind(steps: Iterable[Kept]) -> list[list[Kept]]:
    kinds: dict[str, list[Kept]] = defaultdict(list)
    for step in steps:
        kinds[step.kind].append(step)
    return [sorted(own, key=lambda step: step.number) for own in kinds.values()]


class _Line:
    """The steps of a kind in order, and which of them is to lose something next.

    Attributes:
        score: of that step; infinite if there is none.
    """

    def __init__(self, steps: list[Kept], noted: Collection[int]) -> None:
        self._steps = steps
        self._numbers = np.array([step.number for step in steps], np.float64)
        self._age = self._numbers[-1] - self._numbers + 1
        self._bytes = {level: np.array([step.bytes_of(level) for step in steps]) for level in _WORTH}
        self._free = np.array([step.number not in noted for step in steps])
        self._free[[0, -1]] = False
        self._find()

    def may_go(self) -> int:
        """The bytes that could go at most."""
        return int(sum(sizes[self._free].sum() for sizes in self._bytes.values()))

    def take(self) -> tuple[Kept, Thinning]:
        """The step that loses something, and what; the next one is found."""
        index, level = self._next
        self._bytes[level][index] = 0
        self._find()
        return self._steps[index], level

    def _find(self) -> None:
        self.score, self._next = np.inf, (0, Thinning.NOTHING)
        for level, worth in _WORTH.items():
            scores = self._scores(level) * worth
            index = int(scores.argmin())
            if scores[index] < self.score:
                self.score, self._next = float(scores[index]), (index, level)

    def _scores(self, level: Thinning) -> NDArray[np.float64]:
        """How far apart the neighbours of each step are, by its age; infinite for those that cannot lose this."""
        scores = np.full(len(self._steps), np.inf)
        there = np.flatnonzero(self._bytes[level] > 0)
        if len(there):
            ends = np.concatenate([self._numbers[[0]], self._numbers[there], self._numbers[[-1]]])
            scores[there] = (ends[2:] - ends[:-2]) / self._age[there]
        may = self._free & ((level == Thinning.RAW) | (self._bytes[Thinning.RAW] == 0))
        return np.where(may, scores, np.inf)
