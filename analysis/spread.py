"""How much tensors vary over the batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis.flow import Place
from stepscope.analysis.neurons import neurons_of, tensor_of
from stepscope.store import Step
from stepscope.store.records import NEURON_STATISTICS

_MEAN, _STD = NEURON_STATISTICS.index("mean"), NEURON_STATISTICS.index("std")


def neuron_moments(step: Step, place: Place) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Mean and standard deviation of each kept neuron over a batch of two or more; None if it is not known."""
    tensor, kept = tensor_of(step, place), neurons_of(step, place)
    if tensor is None or kept is None or kept.statistics is None or not tensor.shape:
        return None
    if tensor.info.batch_dim is None or tensor.shape[tensor.info.batch_dim] < 2:
        return None
    return np.asarray(kept.statistics[_MEAN], np.float64), np.asarray(kept.statistics[_STD], np.float64)


def share_between(steps: Sequence[Step], place: Place) -> float:
    """The part of the neurons' variance that lies between batches and not within them: 1/batch where data is shuffled.

    NaN if fewer than half of the steps, or than ten, tell.
    """
    moments = [found for found in (neuron_moments(step, place) for step in steps) if found is not None]
    if len(moments) < max(10, len(steps) / 2) or len({len(mean) for mean, _ in moments}) > 1:
        return float("nan")
    within = float(np.mean([std**2 for _, std in moments]))
    between = float(np.mean(np.var([mean for mean, _ in moments], axis=0)))
    return between / (between + within) if between + within > 0 else float("nan")


def relative_spread(step: Step, place: Place) -> float:
    """The spread of the neurons over the batch as a part of the size of the values; NaN if it is not known."""
    moments = neuron_moments(step, place)
    if moments is None:
        return float("nan")
    mean, std = moments
    size = float(np.sqrt(np.mean(mean**2 + std**2)))
    return float(np.sqrt(np.mean(std**2))) / size if size > 0 else 0.0


def direction_spread(step: Step, place: Place) -> float:
    """The same of the kept samples, each divided by its norm: what a cosine sees; NaN if it is not known."""
    kept = neurons_of(step, place)
    if kept is None or kept.samples.ndim != 2 or len(kept.samples) < 2:
        return float("nan")
    rows = kept.samples.astype(np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or not norms.all():
        return float("nan")
    return float(np.sqrt(np.mean(np.var(rows / norms, axis=0)) * rows.shape[1]))
