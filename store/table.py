"""Recordings as tidy tables: a row for each measured tensor of each step, a column for each fact and statistic."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from stepscope.store.errors import StoreError, unknown
from stepscope.store.layout import Layout
from stepscope.store.records import STATISTICS
from stepscope.store.step import Step

if TYPE_CHECKING:
    from stepscope.store.trial import Trial

Table = dict[str, NDArray[Any]]
Library = Literal["numpy", "pandas", "polars", "pyarrow"]

FACTS = ("step", "kind", "node", "role", "iteration", "quantity", "type")
"""The columns in front of the statistics."""

ROWS_AT_ONCE = 100_000


@dataclass(frozen=True)
class TableQuestion:
    """Which rows and statistics a table has; None stands for all."""

    nodes: Collection[str] | None = None
    quantities: Collection[str] | None = None
    kinds: Collection[str] | None = None
    steps: Collection[int] | None = None
    statistics: Sequence[str] = STATISTICS

    def check(self, trial: Trial) -> None:
        """Raise ``UnknownNameError`` for names that the trial does not have."""
        _check("node", self.nodes, (node.name for node in trial.nodes))
        _check("quantity", self.quantities, trial.quantities)
        _check("kind", self.kinds, trial.kinds)
        _check("step", self.steps, trial.steps.tolist())
        _check("statistic", self.statistics, STATISTICS)

    def numbers(self, trial: Trial) -> list[int]:
        """The steps in question."""
        pairs = zip(trial.steps.tolist(), trial.step_kinds, strict=True)
        steps = None if self.steps is None else set(self.steps)
        return [
            number
            for number, kind in pairs
            if (steps is None or number in steps) and (self.kinds is None or kind in self.kinds)
        ]

    def rows(self, layout: Layout) -> NDArray[np.int64]:
        """The rows in question of the steps of a layout."""
        wanted = [
            row
            for row, tensor in enumerate(layout.tensors)
            if (self.nodes is None or tensor.node in self.nodes)
            and (self.quantities is None or tensor.quantity in self.quantities)
        ]
        return np.array(wanted, np.int64)


def tables(trial: Trial, question: TableQuestion) -> Iterator[Table]:
    """The table in parts of some ``ROWS_AT_ONCE`` rows each; there is at least one part."""
    rows_of: dict[bytes, NDArray[np.int64]] = {}
    parts: list[Table] = []
    size, yielded = 0, False
    for number in question.numbers(trial):
        step = trial.step(number)
        if step.layout.name not in rows_of:
            rows_of[step.layout.name] = question.rows(step.layout)
        rows = rows_of[step.layout.name]
        if not len(rows):
            continue
        parts.append(_of_step(step, rows, question.statistics))
        size += len(rows)
        if size >= ROWS_AT_ONCE:
            yield _joined(parts, question.statistics)
            parts, size, yielded = [], 0, True
    if parts or not yielded:
        yield _joined(parts, question.statistics)


def _of_step(step: Step, rows: NDArray[np.int64], statistics: Sequence[str]) -> Table:
    tensors = [step.layout.tensors[row] for row in rows.tolist()]
    numbers = step.statistics()[rows]
    table: Table = {
        "step": np.full(len(rows), step.number, np.int64),
        "kind": _texts([step.kind] * len(rows)),
        "node": _texts([tensor.node for tensor in tensors]),
        "role": _texts([tensor.role for tensor in tensors]),
        "iteration": np.array([tensor.iteration for tensor in tensors], np.int64),
        "quantity": _texts([tensor.quantity for tensor in tensors]),
        "type": _texts([tensor.type for tensor in tensors]),
    }
    table.update({name: numbers[:, STATISTICS.index(name)] for name in statistics})
    return table


def _texts(values: list[Any]) -> NDArray[Any]:
    """References to the texts of the layout: a table of millions of rows has few different ones."""
    return np.array(values, object)


def _joined(parts: Sequence[Table], statistics: Sequence[str]) -> Table:
    if parts:
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    numbers: Table = {name: np.zeros(0, np.int64 if name in ("step", "iteration") else object) for name in FACTS}
    return {**numbers, **{name: np.zeros(0) for name in statistics}}


def converted(table: Table, library: Library) -> Any:
    """A table as the data frame (or Arrow table) of a library.

    Raises:
        StoreError: it is not installed, or it is none of those known.
    """
    if library == "numpy":
        return table
    if library not in get_args(Library):
        raise unknown("library", library, get_args(Library))
    try:
        module = importlib.import_module(library)
    except ImportError as error:
        raise StoreError(f"library={library!r} is not installed: pip install {library}; or take 'numpy'") from error
    if library == "pandas":
        return module.DataFrame(table)
    columns = {name: _plain(values) for name, values in table.items()}
    return module.table(columns) if library == "pyarrow" else module.DataFrame(columns)


def _plain(values: NDArray[Any]) -> Any:
    return values.tolist() if values.dtype == object else values


def _check(what: str, given: Iterable[object] | None, known: Iterable[object]) -> None:
    if isinstance(given, str):
        raise StoreError(f"{what} {given!r} is one text; expected a list of them: [{given!r}]")
    there = list(known) if given is not None else []
    for name in given or ():
        if name not in there:
            raise unknown(what, name, there)
