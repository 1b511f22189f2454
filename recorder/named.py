"""A tensor that got a name during a step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from stepscope.store.records import SourceLine, TensorType

PRELUDE = -1
"""The iteration of what is made before, between or after the iterations of a step."""


@dataclass(eq=False, slots=True)
class Named:
    """One named tensor of the step. Role, type and iteration may still be settled when the step ends.

    ``call`` counts the uses of the same name in the same iteration; ``automatic`` names were not given by the user
    and give way to those that are.
    """

    node: str
    role: str
    iteration: int
    type: TensorType
    dtype: torch.dtype
    device: torch.device
    batch_dim: int | None
    module: str = ""
    module_class: str = ""
    call: int = 0
    automatic: bool = False
    trace_node: int = -1
    order: int = 0
    source: SourceLine | None = None


@lru_cache(maxsize=64)
def dtype_name(dtype: torch.dtype) -> str:
    """``float32`` and the like."""
    return str(dtype)[6:]


@lru_cache(maxsize=64)
def device_name(device: torch.device) -> str:
    """``cpu``, ``cuda:0`` and the like."""
    return str(device)
