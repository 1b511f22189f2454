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
    """Where answers come from: the layout of a step, column chunks, whole steps.

    ``repeated`` are the numbers of steps that were written more than once; chunks may hold a superseded one.
    """

    layout_of: Callable[[int], Layout | None]
    chunks: Sequence[Chunk]
    read_step: Callable[[int], Step]
    repeated: Set[int]


def gather(question: SeriesQuestion, steps: NDArray[np.int64], source: Source) -> Series:
    """Answer a question for the given steps: from column chunks where there are any, else step by step."""
    if question.is_ratio:
        return _ratio(question, steps, source)
    rows = _rows(question, steps.tolist(), source)
    values: dict[int, float] = {}
    for chunk in source.chunks:
        _from_chunk(question, chunk, rows, source, values)
    for number, row in rows.items():
        if number not in values:
            value = _from_step(question, number, row, source.read_step)
            if value is not None:
                values[number] = value
    found = sorted(values)
    return Series(np.array(found, np.int64), np.array([values[number] for number in found], np.float64))


def _rows(question: SeriesQuestion, numbers: Sequence[int], source: Source) -> dict[int, int]:
    """The row that answers in each step that has one."""
    of_layout: dict[bytes, int | None] = {}
    rows = {}
    for number in numbers:
        layout = source.layout_of(number)
        if layout is None:
            continue
        if layout.name not in of_layout:
            of_layout[layout.name] = question.row(layout)
        row = of_layout[layout.name]
        if row is not None:
            rows[number] = row
    return rows


def _from_chunk(
    question: SeriesQuestion, chunk: Chunk, rows: dict[int, int], source: Source, values: dict[int, float]
) -> None:
    numbers = chunk.numbers.tolist()
    wanted = [i for i, number in enumerate(numbers) if number in rows and number not in source.repeated]
    if not wanted:
        return
    first = numbers[wanted[0]]
    layout = source.layout_of(first)
    if layout is None or layout.name != chunk.layout:
        return
    try:
        found = _chunk_values(question, chunk, rows[first])[wanted].tolist()
    except DamagedError:
        return
    values.update(zip((numbers[i] for i in wanted), found, strict=True))


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
