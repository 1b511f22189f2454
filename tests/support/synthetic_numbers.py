"""Numbers for the synthetic recordings: tensors drawn at random, and all that is measured of them, many at a time."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepscope.store.records import (
    HISTOGRAM_BINS,
    HISTOGRAM_HALF_BINS,
    HISTOGRAM_MIN_EXPONENT,
    STATISTICS,
    Neurons,
)

_ZERO = HISTOGRAM_HALF_BINS + 1


@dataclass(frozen=True)
class Measured:
    """What a ``StepRecord`` holds of N tensors of one shape."""

    statistics: NDArray[np.float64]
    aggregates: NDArray[np.float32]
    per_sample: NDArray[np.float32]
    histograms: NDArray[np.uint32]
    neurons: list[Neurons]


class Arrays:
    """The arrays of a step record, filled part by part."""

    def __init__(self, rows: int, samples: int) -> None:
        self.statistics = np.empty((rows, len(STATISTICS)))
        self.aggregates = np.empty((rows, 4, 3), np.float32)
        self.per_sample = np.empty((rows, samples, 4), np.float32)
        self.histograms = np.empty((rows, HISTOGRAM_BINS), np.uint32)
        self.neurons: list[Neurons | None] = [None] * rows

    def put(self, rows: NDArray[np.int64], part: Measured) -> None:
        self.statistics[rows] = part.statistics
        self.aggregates[rows] = part.aggregates
        self.per_sample[rows] = part.per_sample
        self.histograms[rows] = part.histograms
        for row, neurons in zip(rows.tolist(), part.neurons, strict=True):
            self.neurons[row] = neurons


def measure(data: NDArray[np.float32], *, batched: bool, samples: int, neuron_limit: int) -> Measured:
    """Measure N tensors of one shape, given as ``(N, batch, neurons)``; the batch is 1 for those without one."""
    flat = data.reshape(len(data), -1)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # "mean of empty slice": NaN is what is wanted
        finite = np.where(np.isfinite(data), data, np.nan).astype(np.float64)
        aggregates, per_sample = _by_sample(finite, samples, batched)
        return Measured(
            _statistics(flat, finite.reshape(len(data), -1)),
            aggregates,
            per_sample,
            histograms(flat),
            _neurons(data, finite, samples, neuron_limit, batched),
        )


def _statistics(flat: NDArray[np.float32], finite: NDArray[np.float64]) -> NDArray[np.float64]:
    columns = {
        "mean": np.nanmean(finite, axis=1),
        "std": np.nanstd(finite, axis=1),
        "abs_mean": np.nanmean(np.abs(finite), axis=1),
        "abs_max": np.nanmax(np.abs(finite), axis=1),
        "min": np.nanmin(finite, axis=1),
        "max": np.nanmax(finite, axis=1),
        "norm": np.sqrt(np.nansum(finite**2, axis=1)),
        "zero_fraction": (flat == 0).mean(axis=1),
        "nan_count": np.isnan(flat).sum(axis=1).astype(np.float64),
        "inf_count": np.isinf(flat).sum(axis=1).astype(np.float64),
        "spectral_norm": np.full(len(flat), np.nan),
    }
    return np.column_stack([columns[name] for name in STATISTICS])


def _by_sample(
    finite: NDArray[np.float64], samples: int, batched: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    count = len(finite)
    if not batched:
        return np.full((count, 4, 3), np.nan, np.float32), np.full((count, samples, 4), np.nan, np.float32)
    magnitude = np.abs(finite)
    of_sample = np.stack(
        [np.nanmean(finite, 2), np.nanstd(finite, 2), np.nanmean(magnitude, 2), np.nanmax(magnitude, 2)], axis=2
    )  # (N, batch, 4)
    over_batch = [np.nanmean(of_sample, 1), np.nanstd(of_sample, 1), np.nanmax(np.abs(of_sample), 1)]
    return np.stack(over_batch, axis=2).astype(np.float32), of_sample[:, :samples].astype(np.float32)


def histograms(flat: NDArray[np.float32]) -> NDArray[np.uint32]:
    """``(N, HISTOGRAM_BINS)`` counts of ``(N, elements)``; the order of the bins is that of ``HISTOGRAM_BINS``."""
    fraction, exponent = np.frexp(np.abs(flat).astype(np.float64))
    octave = exponent.astype(np.int64) - 1 - HISTOGRAM_MIN_EXPONENT
    bins = np.clip(2 * octave + (fraction >= 0.75), 0, HISTOGRAM_HALF_BINS - 1)
    place = np.where(flat < 0, HISTOGRAM_HALF_BINS - bins, _ZERO + 1 + bins)
    place = np.select(
        [flat == 0, flat == -np.inf, flat == np.inf, np.isnan(flat)],
        [_ZERO, 0, HISTOGRAM_BINS - 2, HISTOGRAM_BINS - 1],
        place,
    )
    place += HISTOGRAM_BINS * np.arange(len(flat))[:, None]
    counts = np.bincount(place.reshape(-1), minlength=HISTOGRAM_BINS * len(flat))
    return counts.reshape(len(flat), HISTOGRAM_BINS).astype(np.uint32)


def _neurons(
    data: NDArray[np.float32], finite: NDArray[np.float64], samples: int, limit: int, batched: bool
) -> list[Neurons]:
    total = data.shape[2]
    kept = np.arange(min(total, limit)) * total // max(min(total, limit), 1)
    raw = data[:, : samples if batched else 1][:, :, kept]
    if not batched:
        return [Neurons(total, None, values) for values in raw]
    chosen = finite[:, :, kept]
    over_batch = np.stack(
        [np.nanmean(chosen, 1), np.nanstd(chosen, 1), np.nanmax(np.abs(chosen), 1)], axis=1
    )  # (N, 3, kept)
    return [Neurons(total, each, values) for each, values in zip(over_batch.astype(np.float32), raw, strict=True)]
