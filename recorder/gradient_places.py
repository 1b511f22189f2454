"""Finds the parameters whose gradient a tensor is, or lies in: gradients are often written to through views."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from stepscope.recorder.elements import elements, storage_of


class GradientPlaces:
    """Where the gradients of some parameters lie in memory, as it is between two ``backward`` calls.

    Each gradient is found once. No gradient is kept alive.
    """

    def __init__(self, parameters: Iterable[torch.Tensor]) -> None:
        self._at: dict[int, dict[int, torch.Tensor]] = {}
        for parameter in parameters:
            if parameter.grad is not None:
                gradient = _memory(parameter.grad)
                self._at.setdefault(storage_of(gradient), {})[gradient.data_ptr()] = parameter

    def pop(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """The parameters whose gradients would change with a tensor, without those that were found before."""
        if not self._at:
            return []
        tensor = _memory(tensor)
        storage = storage_of(tensor)
        inside = self._at.get(storage)
        if not inside or not tensor.numel():
            return []
        exact = inside.get(tensor.data_ptr())
        if exact is not None and exact.grad is not None and _memory(exact.grad).numel() == tensor.numel():
            return [inside.pop(tensor.data_ptr())]
        return list(self._at.pop(storage).values())


def _memory(tensor: torch.Tensor) -> torch.Tensor:
    tensor = elements(tensor.detach())
    return tensor._values() if tensor.layout == torch.sparse_coo else tensor
