"""All faults by name."""

from __future__ import annotations

from stepscope.examples.broken.seeded.fault import Fault
from stepscope.examples.broken.seeded.faults import (
    data,
    gradients,
    layers,
    loops,
    losses,
    optimising,
    targets,
    weights,
)

_THEMES = (optimising, loops, weights, layers, gradients, data, targets, losses)

FAULTS: dict[str, Fault] = {
    fault.name: fault for theme in _THEMES for fault in vars(theme).values() if isinstance(fault, Fault)
}
