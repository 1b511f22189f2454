"""Units of layers that are dead: features (or channels) that are zero for every sample of several steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis.flow import Place
from stepscope.analysis.neurons import neurons_of, tensor_of
from stepscope.analysis.view import View
from stepscope.store import Step
from stepscope.store.records import NEURON_STATISTICS

_ABS_MAX = NEURON_STATISTICS.index("abs_max")


def late_steps(view: View, count: int = 5) -> list[Step]:
    """Some steps of the last third of the training."""
    late = view.training[2 * len(view.training) // 3 :]
    return (
        [late[index] for index in sorted({*np.linspace(0, len(late) - 1, count).round().astype(int)})] if late else []
    )


def dead_units(steps: Sequence[Step], place: Place, quantity: str) -> NDArray[np.bool_] | None:
    """``(units,)``: which are zero for every sample in all of these steps; None if they were not kept."""
    dead: NDArray[np.bool_] | None = None
    for step in steps:
        tensor, kept = tensor_of(step, place, quantity), neurons_of(step, place, quantity)
        if (
            tensor is None
            or kept is None
            or kept.statistics is None
            or tensor.info.batch_dim != 0
            or len(tensor.shape) < 2
        ):
            return None
        zero = kept.statistics[_ABS_MAX] == 0
        positions = np.arange(len(zero)) * kept.total // max(len(zero), 1)
        unit = unit_of(positions, tensor.shape[1:])
        alive = np.zeros(int(unit.max()) + 1, bool)
        np.logical_or.at(alive, unit, ~zero)
        seen = np.zeros(len(alive), bool)
        seen[unit] = True
        now = ~alive[seen]
        dead = now if dead is None or len(dead) != len(now) else dead & now
    return dead


def unit_of(positions: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """The feature of each neuron: channels come first in images, features last in everything else."""
    if len(shape) >= 3:
        return positions // int(np.prod(shape[1:]))
    return positions % shape[-1]
