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
        """Take the batch size from the inputs of a model: the length of the first that has dimensions.

        Under ``vmap`` a model sees one sample at a time: that says nothing of the batch.
        """
        shapes = [_shape(tensor) for tensor in tensors if not _is_transformed(tensor)]
        sizes = [shape[0] for shape in shapes if shape]
        if sizes:
            self._size = sizes[0]

    def fits(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor may hold one entry a sample."""
        shape = _shape(tensor)
        return bool(shape) and (self._size is None or self._size in shape)

    def find(self, tensor: torch.Tensor) -> int | None:
        """The dimension as long as the batch: the first if it fits, else any that does."""
        shape = () if tensor.is_nested else tensor.shape
        if not shape:
            return None
        if self._size is None:
            self._size = shape[0]
        return shape.index(self._size) if self._size in shape else None

    def check(self, tensor: torch.Tensor, given: int) -> int:
        """The dimension that the user gave, counted from the front.

        Raises:
            BatchDimensionError: the tensor has no such dimension.
        """
        _check(tensor, given)
        if self._size is None:
            self._size = tensor.shape[given]
        return given % tensor.dim()


def _shape(tensor: torch.Tensor) -> tuple[int, ...]:
    """The shape of a tensor; none for nested ones, whose parts have different shapes."""
    return () if tensor.is_nested else tensor.shape


def _is_transformed(tensor: torch.Tensor) -> bool:
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))


def _check(tensor: torch.Tensor, given: object) -> None:
    if isinstance(given, bool) or not isinstance(given, int):
        raise BatchDimensionError(f"batch_dim={given!r}: expected a whole number, or False for no batch")
    if not _shape(tensor):
        raise BatchDimensionError(f"batch_dim={given}: this tensor has no dimensions to choose from; leave it out")
    if not -tensor.dim() <= given < tensor.dim():
        raise BatchDimensionError(
            f"batch_dim={given} does not exist in a tensor of shape {tuple(tensor.shape)}; "
            f"give a dimension from 0 to {tensor.dim() - 1}, or batch_dim=False for none"
        )
