"""Which axes are logarithmic, and where their labels stand."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def wants_log(curves: Iterable[NDArray[np.float64]]) -> bool:
    """Whether curves span so much that a linear axis would show little: none negative, and three decades or more.

    Where some are zero, which no logarithmic axis can show, they must also be small for the most part.
    """
    finite = _finite(curves)
    positive = finite[finite > 0]
    if not len(positive) or finite.min() < 0 or positive.max() / positive.min() <= 1000:
        return False
    return bool(finite.min() > 0 or np.median(finite) < 0.1 * finite.max())


def log_axis(curves: Iterable[NDArray[np.float64]]) -> dict[str, Any]:
    """Labels at whole powers of ten, as many as there is room for; between them, too, where there are few."""
    finite = _finite(curves)
    positive = finite[finite > 0]
    decades = math.log10(positive.max() / positive.min()) if len(positive) else 0.0
    return {"type": "log", **({"dtick": math.ceil(decades / 6)} if decades > 1.5 else {})}


def _finite(curves: Iterable[NDArray[np.float64]]) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.concatenate([np.zeros(0), *(np.ravel(curve) for curve in curves)])
    finite: NDArray[np.float64] = values[np.isfinite(values)]
    return finite
