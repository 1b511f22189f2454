"""All runs by name: those of the files in this folder, and those that are held back."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterator
from importlib import import_module
from types import ModuleType

from stepscope.examples import broken
from stepscope.examples.broken import held_back
from stepscope.examples.broken.case import HELD_BACK, Case
from stepscope.examples.broken.lab import Lab

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


_FILES = tuple(_files())

BROKEN: dict[str, Case] = {
    case.name: case for module in _FILES for case in vars(module).values() if isinstance(case, Case)
}
"""Runs with one mistake each."""

HEALTHY: dict[str, Callable[[Lab], None]] = {
    name: train
    for module in _FILES
    if module.__name__.rpartition(".")[-1].startswith("healthy_")
    for name, train in _healthy(module).items()
}
"""Runs without any."""

UNREAD = frozenset(
    [name for name, case in BROKEN.items() if case.held_back]
    + [name for name, train in HEALTHY.items() if HELD_BACK in train.__module__]
)
"""Runs that no rule may be tuned to."""
