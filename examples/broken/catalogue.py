"""All runs by name."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable
from importlib import import_module
from types import ModuleType

from stepscope.examples.broken import (
    attention,
    attentive,
    blocks,
    codes,
    depth,
    dimensions,
    generative,
    healthy_codes,
    healthy_pictures,
    healthy_readers,
    healthy_sequences,
    healthy_texts,
    healthy_trainings,
    healthy_vectors,
    held_back,
    inputs,
    language,
    loops,
    midway,
    modes,
    numerics,
    outputs,
    pictures,
    pipelines,
    players,
    rates,
    readers,
    recurrent,
    reinforced,
    signals,
    singular,
    trainings,
    updates,
    validation,
    vectors,
    wiring,
)
from stepscope.examples.broken.case import HELD_BACK, Case
from stepscope.examples.broken.lab import Lab


def _runs_of(module: ModuleType) -> dict[str, Callable[[Lab], None]]:
    return {
        name: function
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
    }


def _unread(*, healthy: bool) -> tuple[ModuleType, ...]:
    """The files of runs that are held back; nobody needs to know what else they are called."""
    names = [file.name for file in pkgutil.iter_modules(held_back.__path__)]
    wanted = [name for name in names if name.startswith("healthy") == healthy]
    return tuple(import_module(f"{held_back.__name__}.{name}") for name in wanted)


THEMES = (
    outputs, loops, rates, wiring, signals, inputs, modes, numerics, language, generative, attention, updates,
    recurrent, depth, singular, codes, reinforced, pipelines, validation, dimensions, blocks, midway,
    attentive, pictures, players, readers, trainings, vectors,
    *_unread(healthy=False),
)  # fmt: skip

HEALTHY_THEMES = (
    healthy_vectors, healthy_sequences, healthy_codes, healthy_readers, healthy_pictures, healthy_texts,
    healthy_trainings,
)  # fmt: skip

BROKEN: dict[str, Case] = {
    case.name: case for module in THEMES for case in vars(module).values() if isinstance(case, Case)
}
"""Runs with one mistake each."""

HEALTHY: dict[str, Callable[[Lab], None]] = {
    name: train for module in (*HEALTHY_THEMES, *_unread(healthy=True)) for name, train in _runs_of(module).items()
}
"""Runs without any."""

UNREAD = frozenset(
    [name for name, case in BROKEN.items() if case.held_back]
    + [name for name, train in HEALTHY.items() if HELD_BACK in train.__module__]
)
"""Runs that no rule may be tuned to."""
