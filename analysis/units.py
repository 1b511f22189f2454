"""Units of layers that are dead: features (or channels) that are zero for every sample of several steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis.flow import Place
from stepscope.analysis.neurons import neurons_of, tensor_of
from stepscope.analysis.view import View
from stepscope.store import Step
from stepscope.store.records import NEURON_STATISTICS, Neurons

_MEAN, _ABS_MAX = (NEURON_STATISTICS.index(name) for name in ("mean", "abs_max"))
Units = NDArray[np.bool_]


def late_steps(view: View, count: int = 5) -> list[Step]:
    """Some steps of the last third of the training."""
    late = view.training[2 * len(view.training) // 3 :]
    return (
        [late[index] for index in sorted({*np.linspace(0, len(late) - 1, count).round().astype(int)})] if late else []
    )


def dead_units(steps: Sequence[Step], place: Place, quantity: str) -> Units | None:
    """``(units,)``: which are zero for every sample in all of these steps; None if they were not kept."""
    return _always(steps, place, quantity, _is_zero)


def closed_units(steps: Sequence[Step], place: Place) -> Units | None:
    """``(units,)``: which are never above zero, so that a ReLU lets nothing through; None if they were not kept."""
    return _always(steps, place, "value", _is_closed)


def _is_zero(kept: Neurons) -> Units:
    return np.asarray(kept.statistics[_ABS_MAX] == 0) if kept.statistics is not None else np.empty(0, bool)


def _is_closed(kept: Neurons) -> Units:
    low = kept.statistics[_MEAN] <= 0 if kept.statistics is not None else np.empty(0, bool)
    return np.asarray(low & np.all(kept.samples <= 0, axis=0))


def _always(steps: Sequence[Step], place: Place, quantity: str, holds: Callable[[Neurons], Units]) -> Units | None:
    """``(units,)``: of which it holds in all of these steps, for all of their neurons."""
    always: Units | None = None
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
        every = holds(kept)
        positions = np.arange(len(every)) * kept.total // max(len(every), 1)
        unit = unit_of(positions, tensor.shape[1:])
        broken = np.zeros(int(unit.max()) + 1, bool)
        np.logical_or.at(broken, unit, ~every)
        seen = np.zeros(len(broken), bool)
        seen[unit] = True
        now = ~broken[seen]
        always = now if always is None or len(always) != len(now) else always & now
    return always


def unit_of(positions: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """The feature of each neuron: channels come first in images, features last in everything else."""
    if len(shape) >= 3:
        return positions // int(np.prod(shape[1:]))
    return positions % shape[-1]
