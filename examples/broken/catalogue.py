"""All runs by name: those of the files in this folder, and those that are held back."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from types import ModuleType
from typing import TypeVar

from stepscope.examples import broken
from stepscope.examples.broken import held_back
from stepscope.examples.broken.case import HELD_BACK, Case
from stepscope.examples.broken.lab import Lab

_Run = TypeVar("_Run")
_WITHOUT_RUNS = {"__main__", "case", "catalogue", "data", "lab", "nets"}


def _files() -> Iterator[ModuleType]:
    """The files with runs. Nobody needs to know what those are called that are held back."""
    for package in (broken, held_back):
        for found in pkgutil.iter_modules(package.__path__):
            if not found.ispkg and found.name not in _WITHOUT_RUNS:
                yield import_module(f"{package.__name__}.{found.name}")


def _healthy(module: ModuleType) -> dict[str, Callable[[Lab], None]]:
    return {
        name: function
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
    }


def _by_name(runs: Iterable[tuple[str, _Run]]) -> dict[str, _Run]:
    """The runs by their names, of which no two may be alike: authors do not know of each other."""
    found: dict[str, _Run] = {}
    for name, run in runs:
        if name in found:
            raise ValueError(f"two runs are called {name!r}: give one of them another name")
        found[name] = run
    return found


_FILES = tuple(_files())

BROKEN: dict[str, Case] = _by_name(
    (case.name, case) for module in _FILES for case in vars(module).values() if isinstance(case, Case)
)
"""Runs with one mistake each."""

HEALTHY: dict[str, Callable[[Lab], None]] = _by_name(
    (name, train)
    for module in _FILES
    if module.__name__.rpartition(".")[-1].startswith("healthy_")
    for name, train in _healthy(module).items()
)
"""Runs without any."""

UNREAD = frozenset(
    [name for name, case in BROKEN.items() if case.held_back]
    + [name for name, train in HEALTHY.items() if HELD_BACK in train.__module__]
)
"""Runs that no rule may be tuned to."""
