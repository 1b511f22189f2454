"""All that can be read of a trial, piece by piece, to be compared after a repair."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from stepscope.store import Step, StoreError, open_trial

Pieces = dict[tuple[object, ...], object]


def everything(folder: Path) -> Pieces:
    """Each piece that can be read, by what it is; arrays as bytes."""
    try:
        trial = open_trial(folder)
    except StoreError:
        return {}
    found: Pieces = {}
    for number in trial.steps.tolist():
        with suppress(StoreError):
            found.update(_of_step(trial.step(number)))
    for group, name in trial.scalar_names:
        found["scalar", group, name] = tuple(values.tobytes() for values in trial.scalars(name, group=group))
    for number, note in enumerate(trial.notes):
        found["note", number] = repr(note)
    return found


def _of_step(step: Step) -> Iterator[tuple[tuple[object, ...], object]]:
    yield (step.number, "header"), repr((step.kind, step.time, step.seconds, step.samples, step.categories))
    for name, read in _parts(step):
        with suppress(StoreError):
            yield (step.number, name), _plain(read())


def _parts(step: Step) -> Iterator[tuple[object, Callable[[], Any]]]:
    yield "rows", step.rows
    yield "statistics", step.statistics
    yield "aggregates", step.aggregates
    yield "per_sample", step.per_sample
    yield "facts", lambda: step.facts
    for iteration in step.iterations:
        yield ("graph", iteration), lambda i=iteration: step.graph(i)
    for row in range(len(step.layout.tensors)):
        yield ("histogram", row), lambda r=row: step.detail.histogram(r)
        yield ("neurons", row), lambda r=row: step.detail.neurons(r)


def _plain(value: Any) -> object:
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if hasattr(value, "samples"):
        return (value.total, _plain(value.statistics), _plain(value.samples))
    return repr(value)
