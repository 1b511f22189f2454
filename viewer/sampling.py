"""Cuts long curves to what a screen can show, so that no spike is lost."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

POINTS = 1500


def min_max(
    steps: NDArray[np.int64], values: NDArray[np.float64], points: int = POINTS
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The lowest and the highest value of each of ``points / 2`` stretches, in order; NaN counts as neither.

    Args:
        steps, values: ``(n,)`` each.
        points: how many are kept at most, about.
    """
    if len(steps) <= points:
        return steps, values
    edges = np.linspace(0, len(steps), points // 2 + 1).astype(np.int64)
    kept: list[int] = []
    for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        part = values[start:end]
        finite = np.flatnonzero(np.isfinite(part))
        if len(finite) == 0:
            kept.append(start)
            continue
        low, high = finite[part[finite].argmin()], finite[part[finite].argmax()]
        kept += sorted({start + int(low), start + int(high)})
    chosen = np.array(kept, np.int64)
    return steps[chosen], values[chosen]
