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
    averages,
    blocks,
    cameras,
    codes,
    courses,
    critics,
    depth,
    dimensions,
    drawn_boxes,
    drawn_dense,
    drawn_likeness,
    drawn_masks,
    drawn_pictures,
    drawn_tabular,
    echoes,
    forecasts,
    gamblers,
    generative,
    healthy_codes,
    healthy_drawn_classic,
    healthy_inventions,
    healthy_pictures,
    healthy_readers,
    healthy_seekers,
    healthy_sequences,
    healthy_sights_and_sounds,
    healthy_tables,
    healthy_taxonomy,
    healthy_texts,
    healthy_trainers,
    healthy_trainings,
    healthy_vectors,
    healthy_writing_and_listening,
    held_back,
    inputs,
    instructions,
    inventors,
    language,
    letters,
    logistics,
    loops,
    midway,
    modes,
    numerics,
    outputs,
    pictures,
    pipelines,
    players,
    pretraining,
    rates,
    readers,
    recordings,
    recurrent,
    reinforced,
    scenes,
    seekers,
    shops,
    signals,
    singular,
    tables,
    taxonomy_depths,
    taxonomy_pictures,
    taxonomy_sequences,
    taxonomy_tables,
    trainers_borrowed,
    trainers_fed,
    trainers_given,
    trainers_paced,
    trainers_signal,
    trainings,
    translations,
    updates,
    updating,
    validation,
    vectors,
    wiring,
    writings,
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
    cameras, courses, echoes, scenes, seekers, tables, updating, writings,
    averages, critics, drawn_boxes, drawn_dense, drawn_likeness, drawn_masks, drawn_pictures, drawn_tabular,
    forecasts, gamblers, instructions, inventors, letters, logistics, pretraining, recordings, shops, translations,
    taxonomy_depths, taxonomy_pictures, taxonomy_sequences, taxonomy_tables,
    trainers_borrowed, trainers_fed, trainers_given, trainers_paced, trainers_signal,
    *_unread(healthy=False),
)  # fmt: skip

HEALTHY_THEMES = (
    healthy_vectors, healthy_sequences, healthy_codes, healthy_readers, healthy_pictures, healthy_texts,
    healthy_trainings, healthy_seekers, healthy_sights_and_sounds, healthy_tables,
    healthy_drawn_classic, healthy_inventions, healthy_writing_and_listening, healthy_taxonomy, healthy_trainers,
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
