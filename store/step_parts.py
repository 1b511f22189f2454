"""The parts of a step, each read once: to find out what is damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from stepscope.store.errors import StoreError
from stepscope.store.step import Step

ARRAYS = ("shapes", "statistics", "aggregates", "per_sample", "facts")


class DamagedPart(NamedTuple):
    """A part of a step that cannot be read: its name (as in ``Step.lost``), and the sentence that says why."""

    name: str
    sentence: str


def damaged_parts(step: Step) -> Iterator[DamagedPart]:
    """What of a step cannot be read, but for what a repair has given up already."""
    for name, read in _parts(step):
        if name not in step.lost:
            try:
                read()
            except StoreError as error:
                yield DamagedPart(name, f"step {step.number}{_where(name)}: {error}")
    yield from _damaged_detail(step)


def _parts(step: Step) -> Iterator[tuple[str, Callable[[], object]]]:
    reading = (step.rows, step.statistics, step.aggregates, step.per_sample, lambda: step.facts)
    yield from zip(ARRAYS, reading, strict=True)
    for iteration in step.iterations:
        yield f"graph {iteration}", lambda i=iteration: step.graph(i)  # type: ignore[misc]


def _where(name: str) -> str:
    return name.replace("graph ", ", iteration ") if name.startswith("graph ") else ""


def _damaged_detail(step: Step) -> Iterator[DamagedPart]:
    """Mostly a whole page of rows is damaged: one sentence is enough."""
    if "detail" in step.lost:
        return
    try:
        detail = step.detail
    except StoreError as error:
        yield DamagedPart("detail", f"step {step.number}: {error}")
        return
    for name, read in (("histograms", detail.histogram), ("neurons", detail.neurons)):
        if name not in step.lost:
            yield from _first_damage(step, name, read)


def _first_damage(step: Step, name: str, read: Callable[[int], object]) -> Iterator[DamagedPart]:
    for index, tensor in enumerate(step.layout.tensors):
        try:
            read(index)
        except StoreError as error:
            yield DamagedPart(name, f"step {step.number}: detail of {tensor.node!r}: {error}")
            return
