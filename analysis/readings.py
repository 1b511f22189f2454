"""Reads the statistics of many steps at once: one small array a step, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis.section import Recording
from stepscope.analysis.turns import points_of_interest
from stepscope.store import Step
from stepscope.store.errors import DamagedError
from stepscope.store.layout import Layout
from stepscope.store.records import BATCH_AGGREGATES, SAMPLE_STATISTICS, STATISTICS

MOST_STEPS = 400
MOST_ROWS = 1_000_000
"""Steps times rows that are kept in memory: about 90 MB. Losses are read in full, whatever their number."""
_AROUND = 5
"""Steps on each side of what a loss does."""
_MOST_LOSSES, _MOST_KINDS = 3, 3


@dataclass
class Readings:
    """The statistics of all chosen steps that have the same layout."""

    layout: Layout
    trains: bool
    steps: list[Step] = field(default_factory=list)

    @cached_property
    def numbers(self) -> NDArray[np.int64]:
        """``(n,)``."""
        return np.array([step.number for step in self.steps], np.int64)

    @cached_property
    def broken(self) -> NDArray[np.int64]:
        """The numbers of the steps in which a loss or a parameter is not finite."""
        rows = [
            row
            for row, tensor in enumerate(self.layout.tensors)
            if tensor.quantity == "value" and tensor.type in ("loss", "parameter")
        ]
        counts = self.statistics[:, rows][:, :, [STATISTICS.index("nan_count"), STATISTICS.index("inf_count")]]
        return np.asarray(self.numbers[(counts > 0).any(axis=(1, 2))])

    @cached_property
    def statistics(self) -> NDArray[np.float64]:
        """``(n, R, len(STATISTICS))``."""
        rows = (len(self.layout.tensors), len(STATISTICS))
        return np.stack([step.statistics() for step in self.steps]) if self.steps else np.empty((0, *rows))

    @cached_property
    def aggregates(self) -> NDArray[np.float32]:
        """``(n, R, len(SAMPLE_STATISTICS), len(BATCH_AGGREGATES))``."""
        rows = (len(self.layout.tensors), len(SAMPLE_STATISTICS), len(BATCH_AGGREGATES))
        arrays = [step.aggregates() for step in self.steps]
        return np.stack(arrays) if arrays else np.empty((0, *rows), np.float32)


def choose_steps(trial: Recording, most: int = MOST_STEPS) -> list[int]:
    """The numbers of the steps to look at: all; or the first and last ones, those around the points where a loss does
    something that it does not do elsewhere, and evenly many between them.
    """
    numbers = trial.steps.tolist()
    if not numbers:
        return []
    rows = max((len(layout.tensors) for layout in trial.layouts()), default=1)
    most = max(50, min(most, MOST_ROWS // max(rows, 1)))
    if len(numbers) <= most:
        return list(numbers)
    ends = most // 20
    chosen = _around(trial.steps, _interesting(trial), most // 5)
    middle = np.linspace(0, len(numbers) - 1, most - 2 * ends - len(chosen)).round().astype(int)
    chosen |= {*range(ends), *range(len(numbers) - ends, len(numbers)), *middle.tolist()}
    return [numbers[index] for index in sorted(chosen)]


def _around(steps: NDArray[np.int64], wanted: Sequence[int], most: int) -> set[int]:
    """The positions of these steps and of their neighbours, as long as there is room."""
    found: set[int] = set()
    for place in np.searchsorted(steps, wanted).tolist():
        near = range(max(0, place - _AROUND), min(len(steps), place + _AROUND + 1))
        if len(found | {*near}) <= most:
            found.update(near)
    return found


def _interesting(trial: Recording) -> list[int]:
    """The numbers of the steps in which a loss jumps, or is not finite."""
    kind_of = dict(zip(trial.steps.tolist(), trial.step_kinds, strict=True))
    found: list[int] = []
    for node in [node.name for node in trial.nodes if node.type == "loss"][-_MOST_LOSSES:]:
        steps, values = trial.series(node, statistic="mean")
        kinds = np.array([kind_of.get(number, "") for number in steps.tolist()], dtype=object)
        for kind in trial.kinds[:_MOST_KINDS]:
            own = kinds == kind
            found += [int(steps[own][point]) for point in points_of_interest(values[own])]
    return found


def read_steps(trial: Recording, numbers: Sequence[int]) -> list[Readings]:
    """The chosen steps by their layout; damaged ones are left out."""
    found: dict[bytes, Readings] = {}
    for number in numbers:
        try:
            step = trial.step(number)
            step.statistics()
            step.aggregates()
        except DamagedError:
            continue
        name = step.layout.name
        if name not in found:
            trains = any(tensor.quantity.startswith(("gradient", "update")) for tensor in step.layout.tensors)
            found[name] = Readings(step.layout, trains)
        found[name].steps.append(step)
    return list(found.values())
