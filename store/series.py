"""One statistic of one tensor over many steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stepscope.store.columns import N_AGGREGATES, Chunk, batch_columns
from stepscope.store.errors import DamagedError, UnknownNameError, unknown
from stepscope.store.layout import Layout
from stepscope.store.nodes import Node
from stepscope.store.records import BATCH_AGGREGATES, SAMPLE_STATISTICS, STATISTICS
from stepscope.store.step import Step

_ONLY_ONE = -1


class Series(NamedTuple):
    """Steps ``(n,)`` and values ``(n,)``; NaN where there was nothing finite to measure."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class SeriesQuestion:
    """What is asked of each step: see ``Trial.series``."""

    node: str
    statistic: str
    quantity: str
    role: str | None
    iteration: int | None
    aggregate: str | None
    sample: int | None

    def check(self, node: Node) -> None:
        """Raise ``UnknownNameError`` for what cannot be asked of this node."""
        if self.quantity not in node.quantities:
            raise unknown(f"quantity of {node.name!r}:", self.quantity, node.quantities)
        if self.role is not None and self.role not in node.roles:
            raise unknown(f"role of {node.name!r}:", self.role, node.roles)
        if self.aggregate is not None and self.aggregate not in BATCH_AGGREGATES:
            raise unknown("aggregate", self.aggregate, BATCH_AGGREGATES)
        if self.sample is not None and (self.aggregate is not None or self.sample < 0):
            raise UnknownNameError(
                f"sample={self.sample}, aggregate={self.aggregate!r}: expected a sample's position from 0 on, "
                "or an aggregate over the batch, not both"
            )
        if self.statistic not in self._statistics():
            raise unknown(f"statistic of {self._subject()}:", self.statistic, self._statistics())

    def _statistics(self) -> tuple[str, ...]:
        if self.aggregate is not None or self.sample is not None:
            return SAMPLE_STATISTICS
        return (*STATISTICS, "ratio") if self.quantity == "update" else STATISTICS

    def _subject(self) -> str:
        return f"the {self.quantity}" if self.aggregate is None and self.sample is None else "samples"

    @property
    def is_ratio(self) -> bool:
        return self.statistic == "ratio"

    def row(self, layout: Layout) -> int | None:
        return layout.row(self.node, self.quantity, self.role, self.iteration)

    @property
    def batch_column(self) -> int | None:
        """Its column among ``batch_columns``, or None for a statistic over all elements."""
        if self.aggregate is not None:
            statistic = SAMPLE_STATISTICS.index(self.statistic)
            return statistic * len(BATCH_AGGREGATES) + BATCH_AGGREGATES.index(self.aggregate)
        if self.sample is not None:
            offset = N_AGGREGATES + self.sample * len(SAMPLE_STATISTICS)
            return offset + SAMPLE_STATISTICS.index(self.statistic)
        return None


@dataclass(frozen=True)
class Source:
    """Where answers come from: the layouts of steps, column chunks, whole steps.

    ``layouts_of`` gives for each step a place among some layouts, and these; None for one that cannot be read.
    ``repeated`` are the numbers of steps that were written more than once; chunks may hold a superseded one, so that
    they have to say that theirs is the one at ``offset_of`` the step.
    """

    layouts_of: Callable[[NDArray[np.int64]], tuple[NDArray[np.int64], Sequence[Layout | None]]]
    chunks: Sequence[Chunk]
    read_step: Callable[[int], Step]
    repeated: Set[int]
    offset_of: Callable[[int], int]


def gather(question: SeriesQuestion, steps: NDArray[np.int64], source: Source) -> Series:
    """Answer a question for the given steps, in order: from column chunks where there are any, else step by step."""
    if question.is_ratio:
        return _ratio(question, steps, source)
    places, layouts = source.layouts_of(steps)
    rows = [None if layout is None else question.row(layout) for layout in layouts]
    has_row = np.array([row is not None for row in rows], bool)[places]
    steps, places = steps[has_row], places[has_row]
    answers = _Answers(question, steps, places, _offsets(steps, source))
    for chunk in source.chunks:
        for place, layout in enumerate(layouts):
            row = rows[place]
            if row is not None and layout is not None and layout.name == chunk.layout:
                answers.take_chunk(chunk, place, row)
    for index in np.flatnonzero(~answers.found).tolist():
        row = rows[places[index]]
        assert row is not None
        answers.take_step(index, row, source.read_step)
    return Series(steps[answers.found], answers.values[answers.found])


def _offsets(steps: NDArray[np.int64], source: Source) -> NDArray[np.int64]:
    """Of each step that occurs more than once, where the one that counts is; -1 for all others."""
    offsets = np.full(len(steps), _ONLY_ONE)
    for index in np.flatnonzero(np.isin(steps, list(source.repeated))).tolist():
        offsets[index] = source.offset_of(int(steps[index]))
    return offsets


class _Answers:
    """The values that were found so far, one a step.

    Attributes:
        values, found: of each step, its value and whether there is one.
    """

    def __init__(
        self,
        question: SeriesQuestion,
        steps: NDArray[np.int64],
        places: NDArray[np.int64],
        offsets: NDArray[np.int64],
    ) -> None:
        self.values = np.full(len(steps), np.nan)
        self.found = np.zeros(len(steps), bool)
        self._question = question
        self._steps = steps
        self._places = places
        self._offsets = offsets

    def take_chunk(self, chunk: Chunk, place: int, row: int) -> None:
        """Take what a chunk says of those of its steps that have the layout with this place."""
        indices = np.searchsorted(self._steps, chunk.numbers)
        inside = np.flatnonzero(indices < len(self._steps))
        own = indices[inside]
        fits = (self._steps[own] == chunk.numbers[inside]) & (self._places[own] == place)
        fits &= (self._offsets[own] == _ONLY_ONE) | chunk.is_of(inside, self._offsets[own])
        if not fits.any():
            return
        try:
            self.values[own[fits]] = _chunk_values(self._question, chunk, row)[inside[fits]]
        except DamagedError:
            return
        self.found[own[fits]] = True

    def take_step(self, index: int, row: int, read_step: Callable[[int], Step]) -> None:
        """Take what a step says itself; nothing, if it cannot be read."""
        value = _from_step(self._question, int(self._steps[index]), row, read_step)
        if value is not None:
            self.values[index], self.found[index] = value, True


def _chunk_values(question: SeriesQuestion, chunk: Chunk, row: int) -> NDArray[np.float64]:
    column = question.batch_column
    if column is None:
        values: NDArray[np.float64] = chunk.statistics(row)[STATISTICS.index(question.statistic)]
        return values
    batch = chunk.batch(row)
    return batch[column].astype(np.float64) if column < len(batch) else np.full(len(chunk.numbers), np.nan)


def _from_step(question: SeriesQuestion, number: int, row: int, read_step: Callable[[int], Step]) -> float | None:
    try:
        step = read_step(number)
        column = question.batch_column
        if column is None:
            return float(step.statistics()[row, STATISTICS.index(question.statistic)])
        batch = batch_columns(step.aggregates()[row : row + 1], step.per_sample()[row : row + 1])[0]
        return float(batch[column]) if column < len(batch) else float("nan")
    except DamagedError:
        return None


def _ratio(question: SeriesQuestion, steps: NDArray[np.int64], source: Source) -> Series:
    update = gather(replace(question, statistic="norm"), steps, source)
    value = gather(replace(question, statistic="norm", quantity="value"), steps, source)
    both, at_update, at_value = np.intersect1d(update.steps, value.steps, return_indices=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return Series(both, update.values[at_update] / value.values[at_value])
