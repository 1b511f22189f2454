"""Raw values in 16 bits: bfloat16, which has the range of float32 and two to three digits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_QUIET_NAN = np.uint16(0x7FC0)


def to_bf16(values: NDArray[Any]) -> NDArray[np.uint16] | None:
    """The nearest bfloat16 of each value, as its bits (ties to even); None if a finite value would become infinite."""
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(values, np.float32)
    bits = single.view(np.uint32)
    upper = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)
    upper[np.isnan(single)] = _QUIET_NAN
    is_infinite = (upper & 0x7FFF) == 0x7F80
    return None if bool((is_infinite & np.isfinite(values)).any()) else upper


def from_bf16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The values, as float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
