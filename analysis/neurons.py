"""The kept neurons of a place in a step, or None: what cannot be read is as good as not kept."""

from __future__ import annotations

from stepscope.analysis.flow import Place
from stepscope.store import Step, Tensor
from stepscope.store.errors import DamagedError
from stepscope.store.records import Neurons


def tensor_of(step: Step, place: Place, quantity: str = "value") -> Tensor | None:
    """The tensor of a place, of the last iteration that has it."""
    if step.layout.row(place.node, quantity, place.role, None) is None:
        return None
    try:
        return step.tensor(place.node, role=place.role, quantity=quantity)
    except DamagedError:
        return None


def neurons_of(step: Step, place: Place, quantity: str = "value") -> Neurons | None:
    """What was kept of each neuron."""
    tensor = tensor_of(step, place, quantity)
    try:
        return None if tensor is None else tensor.neurons
    except DamagedError:
        return None
