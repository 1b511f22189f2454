"""All runs by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType

from stepscope.examples.broken import (
    attention,
    codes,
    depth,
    generative,
    healthy_codes,
    healthy_readers,
    healthy_sequences,
    healthy_vectors,
    inputs,
    language,
    loops,
    modes,
    numerics,
    outputs,
    pipelines,
    rates,
    recurrent,
    reinforced,
    signals,
    singular,
    updates,
    validation,
    wiring,
)
from stepscope.examples.broken.case import Case
from stepscope.examples.broken.lab import Lab


def _runs_of(module: ModuleType) -> dict[str, Callable[[Lab], None]]:
    return {
        name: function
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
    }


THEMES = (
    outputs, loops, rates, wiring, signals, inputs, modes, numerics, language, generative, attention, updates,
    recurrent, depth, singular, codes, reinforced, pipelines, validation,
)  # fmt: skip

BROKEN: dict[str, Case] = {
    case.name: case for module in THEMES for case in vars(module).values() if isinstance(case, Case)
}
"""Runs with one mistake each."""

HEALTHY: dict[str, Callable[[Lab], None]] = {
    name: train
    for module in (healthy_vectors, healthy_sequences, healthy_codes, healthy_readers)
    for name, train in _runs_of(module).items()
}
"""Runs without any."""
