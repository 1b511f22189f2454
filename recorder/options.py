"""What a recorder keeps of each tensor."""

from __future__ import annotations

from dataclasses import dataclass


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
