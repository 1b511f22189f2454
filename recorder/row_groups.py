"""Tensors of the same shape that are measured together, and what comes of it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from stepscope.recorder.memory import Holding
from stepscope.recorder.named import Named, dtype_name
from stepscope.recorder.statistics import Measured, bytes_of_results, measure

Row = tuple[Named, str]
"""A named tensor, and the quantity of it."""


class RowKey(NamedTuple):
    """One row of the record to be: a quantity of a named tensor."""

    named: Named
    quantity: str
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class MeasuredRows:
    """The results of one group, and which rows each of its tensors stands for (aliases share one measurement).

    ``is_complete`` is False if its neurons and samples were dropped for want of memory.
    """

    rows: tuple[tuple[RowKey, ...], ...]
    results: Measured
    batched: bool
    is_complete: bool = True


@dataclass(frozen=True)
class Group:
    """Tensors of the same shape and type, to be measured together in the same way.

    ``rows`` and ``strides`` belong to the tensors as they were, which may be copies by now.
    """

    tensors: tuple[torch.Tensor, ...]
    rows: tuple[tuple[Row, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    batch_dim: int | None
    neuron_limit: int
    samples: tuple[int, ...]
    bytes: int
    is_complete: bool = True

    @property
    def bytes_of_results(self) -> int:
        """What its results will take."""
        first, batched = self.tensors[0], self.batch_dim is not None
        one = bytes_of_results(
            first.numel(),
            first.shape[self.batch_dim] if self.batch_dim is not None else 1,
            batched=batched,
            samples=len(self.samples),
            neuron_limit=self.neuron_limit,
        )
        return one * len(self.tensors)

    def without_detail(self) -> Group:
        """The same, to be measured without neurons and samples."""
        return replace(self, neuron_limit=0, samples=(), is_complete=False)

    def singles(self) -> Iterable[Group]:
        """Each tensor as a group of its own."""
        for tensor, rows, strides in zip(self.tensors, self.rows, self.strides, strict=True):
            yield replace(self, tensors=(tensor,), rows=(rows,), strides=(strides,))

    def keys(self) -> tuple[tuple[RowKey, ...], ...]:
        """The rows of each tensor with what the record says of them."""
        dtype, shape = dtype_name(self.tensors[0].dtype), tuple(self.tensors[0].shape)
        return tuple(
            tuple(RowKey(named, quantity, dtype, shape, strides) for named, quantity in rows)
            for rows, strides in zip(self.rows, self.strides, strict=True)
        )


class Deferred:
    """A group on its way to the writer's thread, where it is measured; holds its part of the memory until then."""

    def __init__(self, group: Group, held: Holding) -> None:
        self._group: Group | None = group
        self._held = held

    def measure(self, faults: list[Exception]) -> list[MeasuredRows]:
        """Measure it, once, and let go of its tensors."""
        group, self._group = self._group, None
        if group is None:
            return []
        try:
            with torch.no_grad():
                return measure_group(group, faults)
        finally:
            self._held.give_back(group.bytes)


def measure_group(group: Group, faults: list[Exception]) -> list[MeasuredRows]:
    """Measure a group; if that fails, each of its tensors alone, so that only the strange one is missing."""
    try:
        return [_measured(group)]
    except Exception as error:
        if len(group.tensors) == 1:
            faults.append(error)
            return []
        return [rows for single in group.singles() for rows in measure_group(single, faults)]


def _measured(group: Group) -> MeasuredRows:
    batched = group.batch_dim is not None
    stack = stack_of(list(group.tensors), group.batch_dim)
    results = measure(stack, batched=batched, samples=group.samples, neuron_limit=group.neuron_limit)
    return MeasuredRows(group.keys(), results, batched, group.is_complete)


def stack_of(tensors: list[torch.Tensor], batch_dim: int | None) -> torch.Tensor:
    """G equally shaped tensors as one ``(G, B, N)`` floating-point stack; B is 1 without a batch dimension."""
    if len(tensors) == 1:
        stack = as_real(tensors[0]).unsqueeze(0)
    else:
        stack = torch.stack([as_real(tensor) for tensor in tensors])
    if batch_dim is None:
        return stack.reshape(len(tensors), 1, math.prod(stack.shape[1:]))
    if batch_dim != 0:
        stack = stack.movedim(batch_dim + 1, 1)
    return stack.reshape(len(tensors), stack.shape[1], math.prod(stack.shape[2:]))


def as_real(tensor: torch.Tensor) -> torch.Tensor:
    """A dense float32 or float64 tensor of the same elements; the magnitudes of complex ones."""
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.is_complex():
        tensor = tensor.abs()
    if tensor.dtype in (torch.float32, torch.float64):
        return tensor
    return tensor.to(torch.float32 if tensor.is_floating_point() else torch.float64)
