"""Which dimension of a tensor counts samples."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from stepscope.recorder.errors import BatchDimensionError


class BatchSize:
    """The size of the step's batch, learned from the model's inputs or else from the first tensor with dimensions."""

    def __init__(self) -> None:
        self._size: int | None = None

    def learn(self, tensors: Iterable[torch.Tensor]) -> None:
        """Take the batch size from the inputs of a model: the length of the first that has dimensions."""
        sizes = [tensor.shape[0] for tensor in tensors if tensor.dim() > 0]
        if sizes:
            self._size = sizes[0]

    def fits(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor may hold one entry a sample."""
        return tensor.dim() > 0 and (self._size is None or self._size in tensor.shape)

    def find(self, tensor: torch.Tensor) -> int | None:
        """The dimension as long as the batch: the first if it fits, else any that does."""
        if tensor.dim() == 0:
            return None
        if self._size is None:
            self._size = tensor.shape[0]
        return tuple(tensor.shape).index(self._size) if self._size in tensor.shape else None

    def check(self, tensor: torch.Tensor, given: int) -> int:
        """The dimension that the user gave, counted from the front.

        Raises:
            BatchDimensionError: the tensor has no such dimension.
        """
        _check(tensor, given)
        if self._size is None:
            self._size = tensor.shape[given]
        return given % tensor.dim()


def _check(tensor: torch.Tensor, given: object) -> None:
    if isinstance(given, bool) or not isinstance(given, int):
        raise BatchDimensionError(f"batch_dim={given!r}: expected a whole number, or False for no batch")
    if tensor.dim() == 0:
        raise BatchDimensionError(f"batch_dim={given}: a tensor of shape () has no dimensions; leave it out")
    if not -tensor.dim() <= given < tensor.dim():
        raise BatchDimensionError(
            f"batch_dim={given} does not exist in a tensor of shape {tuple(tensor.shape)}; "
            f"give a dimension from 0 to {tensor.dim() - 1}, or batch_dim=False for none"
        )
