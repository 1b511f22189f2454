"""Gradients of parameters as ``backward`` left them, where something writes to them before they are used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from stepscope.recorder.elements import elements
from stepscope.recorder.loss_scale import LossScale

BEFORE_CLIPPING = "gradient before clipping"
"""The quantity of these gradients; what an optimizer used is ``gradient``."""


@dataclass(frozen=True)
class _Copy:
    """A gradient from before a change; ``then`` tells the changed one, as it was when a later ``backward`` began."""

    values: torch.Tensor
    then: tuple[int, int] | None = None


class UnclippedGradients:
    """Keeps a copy of a gradient from just before something writes to it: clipping, or the user's own arithmetic."""

    def __init__(self, scale: LossScale) -> None:
        self._scale = scale
        self._copies: dict[int, _Copy] = {}

    def keep(self, parameter: torch.Tensor) -> None:
        """The gradient of a parameter is about to change."""
        if parameter.grad is None:
            return
        values = self.current(parameter)
        if values is None:
            values = self._scale.unscaled_leaf(elements(parameter.grad.detach()))
        self._copies[id(parameter)] = _Copy(values)

    def forget(self, parameter: torch.Tensor) -> None:
        """The gradient of a parameter was set to zero, or to nothing."""
        self._copies.pop(id(parameter), None)

    def before_backward(self, parameters: Mapping[int, torch.Tensor]) -> None:
        """A ``backward`` begins, which may add to gradients that were changed."""
        self._copies = {
            key: replace(copy, then=_state(parameters[key]))
            for key, copy in self._copies.items()
            if copy.then in (None, _state(parameters[key]))
        }

    def current(self, parameter: torch.Tensor) -> torch.Tensor | None:
        """The gradient as it was, if it was changed and nothing was added to it since."""
        copy = self._copies.get(id(parameter))
        return copy.values if copy is not None and copy.then in (None, _state(parameter)) else None

    def pop(self, parameter: torch.Tensor) -> torch.Tensor | None:
        """The same, and forget it."""
        values = self.current(parameter)
        self.forget(parameter)
        return values

    def release(self) -> None:
        self._copies.clear()


def _state(parameter: torch.Tensor) -> tuple[int, int]:
    return (0, 0) if parameter.grad is None else (id(parameter.grad), parameter.grad._version)
