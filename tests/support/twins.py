"""Naive twins of the recorder's statistics: one element, one sample, one formula at a time, in extended precision.

They know nothing of stacks, scaling or corrections: what they compute is the definition.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from stepscope.store import Histogram
from stepscope.store.records import HISTOGRAM_BINS, HISTOGRAM_HALF_BINS

Floats = NDArray[np.float64]


def overall(values: Floats) -> dict[str, float]:
    """Every statistic of all elements of an array."""
    flat = [float(value) for value in values.reshape(-1)]
    finite = [value for value in flat if math.isfinite(value)]
    mean, std, abs_mean, abs_max = moments(np.array(finite))
    return {
        "mean": mean,
        "std": std,
        "abs_mean": abs_mean,
        "abs_max": abs_max,
        "min": min(finite, default=math.nan),
        "max": max(finite, default=math.nan),
        "norm": _root_of_squares(finite) if finite else math.nan,
        "zero_fraction": flat.count(0.0) / len(flat) if flat else math.nan,
        "nan_count": sum(map(math.isnan, flat)),
        "inf_count": sum(map(math.isinf, flat)),
    }


def moments(values: Floats) -> tuple[float, float, float, float]:
    """Mean, population standard deviation, mean magnitude and largest magnitude of the finite elements."""
    wide = np.asarray([value for value in values.reshape(-1) if math.isfinite(value)], np.longdouble)
    if wide.size == 0:
        return math.nan, math.nan, math.nan, math.nan
    mean = wide.sum() / wide.size
    variance = ((wide - mean) ** 2).sum() / wide.size
    return float(mean), float(np.sqrt(variance)), float(abs(wide).sum() / wide.size), float(abs(wide).max())


def per_sample(values: Floats) -> Floats:
    """``(samples, neurons)`` to ``(samples, 4)``: the moments of each sample."""
    return np.array([moments(sample) for sample in values]).reshape(len(values), 4)


def aggregates(values: Floats) -> Floats:
    """``(samples, neurons)`` to ``(4, 3)``: mean, std and largest magnitude over the batch, of each moment."""
    columns = per_sample(values).T
    return np.array([[mean, std, abs_max] for mean, std, _, abs_max in map(moments, columns)])


def neurons(values: Floats) -> Floats:
    """``(samples, neurons)`` to ``(3, neurons)``: mean, std and largest magnitude of each neuron over the batch."""
    found = [moments(column) for column in values.T]
    return np.array([[mean, std, abs_max] for mean, std, _, abs_max in found]).reshape(-1, 3).T


def histogram(values: Floats) -> NDArray[np.int64]:
    """Counts by the bins that the store documents, found by comparing each element with the edges."""
    counts = np.zeros(HISTOGRAM_BINS, np.int64)
    for value in values.reshape(-1):
        counts[_bin_of(float(value))] += 1
    return counts


def _bin_of(value: float) -> int:
    if math.isnan(value):
        return HISTOGRAM_BINS - 1
    if math.isinf(value):
        return 0 if value < 0 else HISTOGRAM_BINS - 2
    if value == 0:
        return HISTOGRAM_HALF_BINS + 1
    above = int((abs(value) >= Histogram.edges()[1:-1]).sum())
    return HISTOGRAM_HALF_BINS + 2 + above if value > 0 else HISTOGRAM_HALF_BINS - above


def _root_of_squares(values: list[float]) -> float:
    return float(np.sqrt((np.asarray(values, np.longdouble) ** 2).sum()))
