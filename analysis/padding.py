"""How much of the sequences of an input is padding behind their end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis.flow import Place
from stepscope.analysis.neurons import neurons_of, tensor_of
from stepscope.analysis.view import View
from stepscope.store import Step
from stepscope.store.records import Neurons

_MOST_STEPS, _FEWEST = 6, 4
_INSIDE = 0.1
"""The part of the numbers before the end that may have the value of padding, too."""
_Rows = NDArray[np.bool_]


@dataclass(frozen=True)
class Padding:
    """What is known of the padding of an input.

    Attributes:
        samples: the part of the known samples that end before their row does.
        places: the part of the places of all known samples that lie behind an end.
        value: what stands there.
    """

    samples: float
    places: float
    value: float


def padding_behind(view: View, place: Place) -> Padding | None:
    """That of an input ``(batch, time)`` or ``(batch, time, features)``; None if there is none, or too little is known.

    Tokens are padded with what most known rows end with; other numbers with rows of zeros.
    """
    steps = view.training[:: max(1, len(view.training) // _MOST_STEPS)][:_MOST_STEPS]
    known = [rows for step in steps if (rows := _rows(step, place)) is not None]
    if not known or sum(len(rows) for rows, _ in known) < _FEWEST:
        return None
    ends = Counter(float(row[-1]) for rows, is_token in known for row in rows if is_token)
    value = ends.most_common(1)[0][0] if ends else 0.0
    padded = [rows == value for rows, _ in known]
    runs = np.concatenate([_trailing(rows) for rows in padded])
    length = padded[0].shape[1]
    before = length * len(runs) - runs.sum()
    inside = sum(int(rows.sum()) for rows in padded) - runs.sum()
    if not runs.any() or before <= 0 or inside > _INSIDE * before:
        return None
    return Padding(float(np.mean(runs > 0)), float(runs.sum()) / (length * len(runs)), value)


def ends_of(step: Step, place: Place, padding: Padding) -> list[int] | None:
    """How long each kept sample of an input is in a step."""
    known = _rows(step, place)
    if known is None:
        return None
    return [int(end) for end in known[0].shape[1] - _trailing(known[0] == padding.value)]


def _rows(step: Step, place: Place) -> tuple[NDArray[np.float64], bool] | None:
    """What is known of each kept sample at each time, and whether these are tokens; of features the largest."""
    tensor, kept = tensor_of(step, place), neurons_of(step, place)
    if tensor is None or kept is None or tensor.info.batch_dim != 0 or not 2 <= len(tensor.shape) <= 3:
        return None
    times, length = times_of(kept, tensor.shape[1]), tensor.shape[1]
    if len(np.unique(times)) < length or length < 2:
        return None
    size = np.zeros((length, len(kept.samples)))
    is_token = len(tensor.shape) == 2 and tensor.info.dtype.startswith(("int", "uint"))
    if is_token:
        size[times] = kept.samples.T
    else:
        np.maximum.at(size, times, np.abs(kept.samples.T))
    return size.T, is_token


def times_of(kept: Neurons, length: int) -> NDArray[np.int64]:
    """The time of each kept neuron of a tensor ``(batch, time, ...)``, or ``(time, batch, ...)``."""
    count = kept.samples.shape[-1]
    places = np.arange(count) * kept.total // max(count, 1)
    return np.asarray(places // max(kept.total // length, 1), dtype=np.int64)


def _trailing(rows: _Rows) -> NDArray[np.int64]:
    """How many True each row ends with."""
    backwards = np.logical_and.accumulate(rows[:, ::-1], axis=1)
    return np.asarray(backwards.sum(axis=1), dtype=np.int64)
