"""Mending the columns: they are derived from the steps, so that they are simply made anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from stepscope.store.columns import ColumnWriter
from stepscope.store.contents import Contents
from stepscope.store.errors import StoreError
from stepscope.store.files import file_path
from stepscope.store.mending.scan import rewrite
from stepscope.store.records import StepRecord
from stepscope.store.step import Step


def mend_columns(folder: Path) -> None:
    """Make the columns anew from the steps."""
    rewrite(file_path(folder, "columns"), _blocks(folder))


def _blocks(folder: Path) -> Iterator[bytes]:
    contents = Contents(folder)
    contents.refresh()
    ready: list[bytes] = []
    writer = ColumnWriter(ready.append)
    for number in contents.index.numbers.tolist():
        with suppress(StoreError):
            step = contents.step(number)
            writer.add(_numbers_of(step), step.layout.name, contents.index.offset_of(number))
        yield from ready
        ready.clear()
    writer.flush()
    yield from ready


def _numbers_of(step: Step) -> StepRecord:
    """As much of a step's record as the columns need."""
    return StepRecord(
        number=step.number, kind=step.kind, time=step.time, seconds=step.seconds, tensors=step.layout.tensors,
        shapes=(), strides=(), statistics=step.statistics(), aggregates=step.aggregates(),
        per_sample=step.per_sample(), histograms=np.zeros((0, 0), np.uint32), neurons=(), graphs=(),
    )  # fmt: skip
