"""Tensors of the same shape that are measured together, and what comes of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from stepscope.recorder.memory import Holding
from stepscope.recorder.named import Named, dtype_name
from stepscope.recorder.small_tensors import LARGEST, MOST, Alike, measure_small, room_for
from stepscope.recorder.statistics import Measured, Survey, bytes_of_results, combined, survey

_REAL = (torch.float32, torch.float64)
_AS_FLOAT32 = (torch.float32, torch.bfloat16, torch.float16)

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

    @property
    def is_small(self) -> bool:
        """Whether it can be measured together with others."""
        first = self.tensors[0]
        if self.batch_dim is not None or not 0 < first.numel() <= LARGEST or first.is_quantized:
            return False
        return first.dtype in _AS_FLOAT32 and first.layout == torch.strided and first.device.type == "cpu"

    def keys(self) -> tuple[tuple[RowKey, ...], ...]:
        """The rows of each tensor with what the record says of them."""
        dtype, shape = dtype_name(self.tensors[0].dtype), tuple(self.tensors[0].shape)
        return tuple(
            tuple(RowKey(named, quantity, dtype, shape, strides) for named, quantity in rows)
            for rows, strides in zip(self.rows, self.strides, strict=True)
        )


@dataclass(frozen=True)
class _Found:
    """What was found of a group of the same rows, to be combined with what was found of others."""

    rows: tuple[tuple[RowKey, ...], ...]
    results: Survey | Measured
    batched: bool
    is_complete: bool


class Deferred:
    """A group on its way to the writer's thread, where it is measured; holds its part of the memory until then."""

    def __init__(self, group: Group, held: Holding) -> None:
        self._group: Group | None = group
        self._held = held
        self._found: list[_Found] = []
        self._faults: list[Exception] = []

    @property
    def group(self) -> Group | None:
        """What is to be measured; None once it was."""
        return self._group

    def look(self, results: Measured | None = None) -> None:
        """Look at its elements, unless the results are known, and let go of its tensors. Only the first time counts."""
        group, self._group = self._group, None
        if group is None:
            return
        try:
            with torch.no_grad():
                self._found = _surveyed(group, self._faults, results)
        finally:
            self._held.give_back(group.bytes)

    def take(self, faults: list[Exception]) -> list[_Found]:
        """What was found, once."""
        found, self._found = self._found, []
        faults += self._faults
        return found


def measure_deferred(deferred: Sequence[Deferred], faults: list[Exception]) -> list[MeasuredRows]:
    """Measure groups, the small ones together."""
    known = _small_results([group for one in deferred if (group := one.group) is not None and group.is_small])
    for one in deferred:
        one.look(known.get(id(one.group)))
    return _finished([found for one in deferred for found in one.take(faults)])


def _small_results(groups: list[Group]) -> dict[int, Measured]:
    """The results of small groups, by their identity; those are missing that have to be measured with more care."""
    found: dict[int, Measured] = {}
    with torch.no_grad(), suppress(Exception):  # measured by themselves, they show what is wrong
        for part in _together(groups):
            alike = [Alike([as_real(tensor) for tensor in group.tensors], group.neuron_limit) for group in part]
            results = zip(part, measure_small(alike), strict=True)
            found.update((id(group), result) for group, result in results if result is not None)
    return found


def _together(groups: list[Group]) -> Iterator[list[Group]]:
    """So many at a time as there is room for."""
    part: list[Group] = []
    room = MOST
    for group in groups:
        taken = room_for(group.tensors[0].numel(), len(group.tensors))
        if part and taken > room:
            yield part
            part, room = [], MOST
        part.append(group)
        room -= taken
    if part:
        yield part


def measure_group(group: Group, faults: list[Exception]) -> list[MeasuredRows]:
    """Measure a group; if that fails, each of its tensors alone, so that only the strange one is missing."""
    known = _small_results([group]).get(id(group)) if group.is_small else None  # in the same way, to the last bit
    return _finished(_surveyed(group, faults, known))


def _surveyed(group: Group, faults: list[Exception], known: Survey | Measured | None = None) -> list[_Found]:
    try:
        results = known if known is not None else _survey(group)
        return [_Found(group.keys(), results, group.batch_dim is not None, group.is_complete)]
    except Exception as error:
        if len(group.tensors) == 1:
            faults.append(error)
            return []
        return [found for single in group.singles() for found in _surveyed(single, faults)]


def _survey(group: Group) -> Survey:
    batched = group.batch_dim is not None
    stack = stack_of(list(group.tensors), group.batch_dim)
    return survey(stack, batched=batched, samples=group.samples, neuron_limit=group.neuron_limit)


def _finished(found: Sequence[_Found]) -> list[MeasuredRows]:
    with torch.no_grad():
        measured = iter(combined([one.results for one in found if isinstance(one.results, Survey)]))
    return [
        MeasuredRows(
            one.rows,
            next(measured) if isinstance(one.results, Survey) else one.results,
            one.batched,
            one.is_complete,
        )
        for one in found
    ]


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
    if tensor.dtype in _REAL and tensor.layout == torch.strided:  # most are: nothing else is asked of them
        return tensor
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.is_complex():
        tensor = tensor.abs()
    if tensor.dtype in _REAL:
        return tensor
    return tensor.to(torch.float32 if tensor.is_floating_point() else torch.float64)
