"""Medians and extremes of what is finite; NaN where nothing is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

NORMAL = 1.4826
"""What makes a median absolute deviation of normal numbers their standard deviation: 1 over the quantile of 3/4."""


def median(values: NDArray[Any]) -> float:
    """The median of the finite values."""
    return float(np.median(kept)) if len(kept := finite(values)) else math.nan


def mean(values: NDArray[Any]) -> float:
    """The mean of the finite values."""
    return float(np.mean(kept)) if len(kept := finite(values)) else math.nan


def deviation(values: NDArray[Any]) -> float:
    """The median absolute deviation of the finite values from their median, times ``NORMAL``."""
    return NORMAL * median(np.abs(finite(values) - median(values)))


def largest(values: NDArray[Any]) -> float:
    """The largest of the finite values."""
    return float(np.max(kept)) if len(kept := finite(values)) else math.nan


def smallest(values: NDArray[Any]) -> float:
    """The smallest of the finite values."""
    return float(np.min(kept)) if len(kept := finite(values)) else math.nan


def finite(values: NDArray[Any]) -> NDArray[Any]:
    """The finite values."""
    kept: NDArray[Any] = values[np.isfinite(values)]
    return kept
