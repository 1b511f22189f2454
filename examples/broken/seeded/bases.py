"""The sound trainings into which faults are planted: fixed twins and healthy runs that train by ``Lab.fit``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from zlib import crc32

from stepscope.examples.broken.case import HELD_BACK as HELD_BACK_FILES
from stepscope.examples.broken.catalogue import BROKEN, HEALTHY
from stepscope.examples.broken.lab import Lab


@dataclass(frozen=True)
class Base:
    """A sound training; ``fixed`` is what its ``Lab`` is told."""

    name: str
    train: Callable[[Lab], None]
    fixed: bool

    @property
    def is_held_back(self) -> bool:
        """Whether what is said of its faults is not looked at by those who write rules: a third of the files."""
        file = self.train.__module__.rpartition(".")[2]
        return HELD_BACK_FILES in self.train.__module__ or crc32(file.encode()) % 3 == 0


def _fits(train: Callable[[Lab], None]) -> bool:
    return inspect.getsource(train).count("lab.fit(") == 1


BASES: dict[str, Base] = {
    base.name: base
    for base in (
        *(Base(name, case.train, fixed=True) for name, case in BROKEN.items()),
        *(Base(name, train, fixed=False) for name, train in HEALTHY.items()),
    )
    if _fits(base.train)
}

HELD_BACK = frozenset(name for name, base in BASES.items() if base.is_held_back)
