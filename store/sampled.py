"""Which numbers of a row are looked at, to guess what the row is like."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_MOST = 64
_GOLDEN = (5**0.5 - 1) / 2


@lru_cache(maxsize=256)
def sampled(size: int) -> NDArray[np.int64]:
    """Places in a row: spread evenly, but not at equal distances, which the row's numbers might have as well."""
    if size <= _MOST:
        return np.arange(size)
    return np.sort(size * (np.arange(_MOST) * _GOLDEN % 1)).astype(np.int64)
