"""Reading every byte of a recording, to say what of it is damaged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stepscope.store.columns import Chunk, batch_columns
from stepscope.store.errors import StoreError
from stepscope.store.group import Group, open_group
from stepscope.store.step_parts import damaged_parts
from stepscope.store.trial import Trial


def verify(folder: Path | str) -> list[str]:
    """Read all of a trial, or of all trials of a group, and say what is damaged or missing.

    >>> verify("runs/sums")                                         # doctest: +SKIP
    ['bugged: steps.stepscope: bytes 5203 to 9411 are damaged and were skipped']

    Args:
        folder: the folder of a trial or of a group.

    Returns:
        The problems in sentences, each after its trial's name; empty if there is none.

    Raises:
        NotARecordingError: there is no such folder.
    """
    group = open_group(folder)
    return [f"{name}: {problem}" for name in group.names for problem in _problems_of(group, name)]


def _problems_of(group: Group, name: str) -> list[str]:
    try:
        return _problems_of_trial(group[name])
    except (StoreError, OSError) as error:
        return [str(error)]


def verify_trial(folder: Path) -> list[str]:
    """``verify`` of one trial's folder, whatever may be in it."""
    try:
        return _problems_of_trial(Trial(folder))
    except (StoreError, OSError) as error:
        return [str(error)]


def _problems_of_trial(trial: Trial) -> list[str]:
    found = [*_each_step(trial), *_each_chunk(trial)]
    return list(dict.fromkeys((*trial.problems, *found)))


def _each_step(trial: Trial) -> Iterator[str]:
    for number in trial.steps.tolist():
        try:
            yield from (part.sentence for part in damaged_parts(trial.step(number)))
        except StoreError as error:
            yield f"step {number}: {error}"


def _each_chunk(trial: Trial) -> Iterator[str]:
    """Columns are derived: where they are damaged, or say something else than the steps, the steps are right."""
    for chunk in trial.chunks():
        try:
            rows = range(chunk.rows)
            statistics = np.stack([chunk.statistics(row) for row in rows], axis=-1)
            batch = np.stack([chunk.batch(row) for row in rows], axis=-1)
        except StoreError as error:
            yield f"columns.stepscope: {error}; its steps are read one by one"
            continue
        numbers = chunk.numbers.tolist()
        for place in np.flatnonzero(trial.counting_steps(chunk)).tolist():
            if not _agrees(trial, chunk, numbers[place], statistics[:, place].T, batch[:, place].T):
                yield f"columns.stepscope: the history of step {numbers[place]} is not what the step says"


def _agrees(
    trial: Trial, chunk: Chunk, number: int, statistics: NDArray[np.float64], batch: NDArray[np.float32]
) -> bool:
    """Whether a step is as its columns say; yes, if it cannot be read."""
    try:
        step = trial.step(number)
        if step.layout.name != chunk.layout:
            return True
        own = batch_columns(step.aggregates(), step.per_sample())
        return np.array_equal(step.statistics(), statistics, equal_nan=True) and np.array_equal(own, batch, True)
    except StoreError:
        return True
