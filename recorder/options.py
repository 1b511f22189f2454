"""What a recorder keeps of each tensor."""

from __future__ import annotations

from dataclasses import dataclass

from stepscope.store.records import Precision
from stepscope.store.room import Limits


@dataclass(frozen=True)
class Options:
    """The switches and limits of a recorder, as they were given to it."""

    samples: int = 5
    neurons: int = 256
    parameter_neurons: int = 64
    gradients: bool = True
    updates: bool = True
    optimizer_state: bool = True
    buffers: bool = True
    max_bytes: int | None = None
    max_step_bytes: int | None = None
    precision: Precision = "float32"

    @property
    def limits(self) -> Limits:
        """Of bytes on the disk."""
        return Limits(self.max_bytes, self.max_step_bytes)
