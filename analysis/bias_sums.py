"""What each call of a layer gave to the gradient of its bias, and the gradient that was used; summed over elements."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np

from stepscope.analysis.clipping import BEFORE_CLIPPING
from stepscope.analysis.history import Values
from stepscope.analysis.layers import layers
from stepscope.analysis.view import View
from stepscope.store import Step
from stepscope.store.records import STATISTICS

_MEAN, _NORM = STATISTICS.index("mean"), STATISTICS.index("norm")
_NOTHING = 1e-3
_MOST_STEPS, _MOST_LAYERS = 40, 4
TOLERANCE = 5e-3
"""Of sums, relative to their terms. Source: float32 rounding of long sums."""


class Sums(NamedTuple):
    """In one step, of one layer: the sum of the bias's gradient, and that of the output's gradient in each call.

    ``norm`` is the largest of the output's gradients: those of a softmax's scores add up to nothing.
    """

    used: float
    calls: Values
    norm: float

    def is_last(self, count: int, tolerance: float = TOLERANCE) -> bool:
        """Whether the gradient is what the last ``count`` calls gave."""
        return abs(self.used - float(self.calls[-count:].sum())) <= tolerance * (abs(self.used) + self._size)

    @property
    def is_telling(self) -> bool:
        """Whether the calls gave something, each something else."""
        return self._size > _NOTHING * self.norm and len(np.unique(np.round(self.calls / self._size, 6))) == len(
            self.calls
        )

    @property
    def _size(self) -> float:
        return float(np.abs(self.calls).max(initial=0.0))


def sums_of_calls(view: View) -> dict[str, list[Sums]]:
    """The sums of some layers with a bias that are called several times a step; by the bias, in the order of steps."""
    steps = list(islice(_repeated(view.training), _MOST_STEPS))
    known = [layer.module for layer in layers(view) if f"{layer.module}.bias" in view.nodes][-_MOST_LAYERS:]
    found: dict[str, list[Sums]] = {}
    for step in steps:
        totals = {name: np.array(values) for name, values in _totals(step, known).items()}
        for module in known:
            used, calls = totals.get(f"{module}.bias"), totals.get(module)
            if used is not None and calls is not None and len(calls) > 1:
                sums = Sums(float(used[-1, 0]), calls[:, 0], float(calls[:, 1].max()))
                found.setdefault(f"{module}.bias", []).append(sums)
    return found


def _repeated(steps: Iterable[Step]) -> Iterator[Step]:
    """Those that call something several times; steps that hold the same tensors are asked once."""
    known: dict[bytes, bool] = {}
    for step in steps:
        layout = step.layout
        if layout.name not in known:
            calls = any(tensor.role.startswith("call ") for tensor in layout.tensors)
            known[layout.name] = calls or len(step.iterations) > 1
        if known[layout.name]:
            yield step


def _totals(step: Step, modules: list[str]) -> dict[str, list[tuple[float, float]]]:
    """Of the gradients of some modules and their biases: sums over the elements, and norms; in the order of calls."""
    wanted = {*modules, *(f"{module}.bias" for module in modules)}
    statistics = step.statistics()
    found: dict[str, list[tuple[float, float]]] = {}
    for row in step.rows():
        if row.info.node in wanted and row.info.quantity in ("gradient", BEFORE_CLIPPING):
            total = float(statistics[row.index, _MEAN]) * math.prod(row.shape)
            found.setdefault(row.info.node, []).append((total, float(statistics[row.index, _NORM])))
    return found
