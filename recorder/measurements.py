"""Collects the tensors that are to be measured in a step, and measures equally shaped ones together."""

from __future__ import annotations

import math
import weakref
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from stepscope.recorder.elements import elements
from stepscope.recorder.memory import Holding, Rank
from stepscope.recorder.named import Named, dtype_name
from stepscope.recorder.ownership import settled
from stepscope.recorder.statistics import Measured, bytes_of_results, measure

_STACK_LIMIT = 1 << 20
"""Tensors are stacked up to this many elements: beyond, a copy costs more than the calls it saves."""
_DEVICE_STACK_LIMIT = 1 << 26
"""The same for other devices than the CPU, whose copies are fast and whose calls are not."""
_PENDING_BYTES = 256 << 20
"""How much memory of the user's tensors may wait to be measured before it is measured early."""


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
    """Tensors of the same shape, to be measured together in the same way."""

    tensors: tuple[torch.Tensor, ...]
    rows: tuple[tuple[RowKey, ...], ...]
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
        for tensor, rows in zip(self.tensors, self.rows, strict=True):
            yield replace(self, tensors=(tensor,), rows=(rows,))


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


@dataclass(eq=False, slots=True)
class _Pending:
    original: weakref.ref[torch.Tensor]
    tensor: torch.Tensor
    version: int
    rows: list[RowKey]
    batch_dim: int | None
    neuron_limit: int
    owned: bool
    bytes: int

    def stands_for(self, tensor: torch.Tensor, version: int, batch_dim: int | None) -> bool:
        """Whether this is the same tensor, unchanged, to be measured in the same way."""
        return self.original() is tensor and self.version == version and self.batch_dim == batch_dim


class Measurements:
    """What waits to be measured, and what has been.

    Tensors wait as detached aliases until the step ends, so that equal shapes can be measured in one go. Whoever
    sees that one is about to be changed in place calls ``measure_before_change`` first.
    """

    def __init__(self, samples: int, held: Holding) -> None:
        self.held = held
        self.sample_indices: tuple[int, ...] = tuple(range(samples))
        self.done: list[MeasuredRows | Deferred] = []
        self.lost: list[RowKey] = []
        self.faults: list[Exception] = []
        self._pending: dict[_Pending, None] = {}
        self._unplaced: list[_Pending] = []
        self._by_storage: dict[int, list[_Pending]] = defaultdict(list)
        self._by_identity: dict[int, _Pending] = {}
        self._bytes = 0
        self._most_pending = min(_PENDING_BYTES, held.memory.limit)

    def add(
        self,
        tensor: torch.Tensor,
        named: Named,
        quantity: str,
        *,
        batch_dim: int | None,
        neuron_limit: int,
        owned: bool = False,
    ) -> None:
        """Let a tensor wait to be measured. The tensor is kept alive until then, not its graph.

        ``owned``: the recorder made it and nobody writes to it.
        """
        tensor = elements(tensor)
        row = RowKey(named, quantity, dtype_name(tensor.dtype), tensor.shape, _strides(tensor))
        version = _version(tensor)
        waiting = self._by_identity.get(id(tensor))
        if waiting is not None and waiting.stands_for(tensor, version, batch_dim):
            waiting.rows.append(row)
            return
        alias = tensor.detach()
        size = tensor.numel() * tensor.element_size()
        pending = _Pending(weakref.ref(tensor), alias, version, [row], batch_dim, neuron_limit, owned, size)
        self._pending[pending] = None
        self._unplaced.append(pending)
        self._by_identity[id(tensor)] = pending
        self._bytes += size
        if self._bytes > self._most_pending:
            self.flush()

    def measure_before_change(self, tensor: torch.Tensor) -> None:
        """Measure now whatever shares memory with a tensor that is about to be changed."""
        if not self._pending:
            return
        for pending in self._unplaced:  # where they lie is asked only if something is changed in place
            self._by_storage[_address(pending.tensor)].append(pending)
        self._unplaced.clear()
        touched = self._by_storage.pop(_address(tensor), None)
        if touched:
            for pending in touched:
                del self._pending[pending]
            self._by_identity.clear()
            self._measure(touched)

    def flush(self) -> None:
        """Measure everything that waits."""
        waiting, self._bytes = list(self._pending), 0
        self._pending.clear()
        self._unplaced.clear()
        self._by_storage.clear()
        self._by_identity.clear()
        self._measure(waiting)

    def _measure(self, waiting: list[_Pending]) -> None:
        groups: dict[tuple[object, ...], list[_Pending]] = defaultdict(list)
        for pending in waiting:
            if _version(pending.tensor) != pending.version:
                self.lost.extend(pending.rows)
                continue
            tensor = pending.tensor
            key = (
                tensor.dtype, tensor.shape, pending.batch_dim, pending.neuron_limit, tensor.device, tensor.layout
            )  # fmt: skip
            groups[key].append(pending)
        waiting.clear()
        with torch.no_grad():
            for alike in groups.values():
                for part in _parts(alike):
                    self._measure_alike(part)

    def _measure_alike(self, alike: list[_Pending]) -> None:
        """On the CPU, let the writer's thread measure what can no longer change; else measure it now."""
        first = alike[0]
        rows = tuple(tuple(pending.rows) for pending in alike)
        tensors = tuple(pending.tensor for pending in alike)
        size = first.bytes * len(alike)
        group = Group(tensors, rows, first.batch_dim, first.neuron_limit, self.sample_indices, size)
        if _may_wait(first.tensor) and self.held.take(group.bytes + group.bytes_of_results, Rank.TENSORS):
            kept = tuple(settled(pending.tensor, owned=pending.owned) for pending in alike)
            self.done.append(Deferred(replace(group, tensors=kept), self.held))
        else:
            self._measure_now(group)

    def _measure_now(self, group: Group) -> None:
        """Measure a group here and now; without detail, or not at all, if even its results have no room."""
        if not self.held.take(group.bytes_of_results, Rank.DETAIL):
            self.held.is_complete = False
            group = group.without_detail()
            if self.held.is_lost or not self.held.take(group.bytes_of_results, Rank.STATISTICS):
                self.held.is_lost = True
                return
        self.done += measure_group(group, self.faults)


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
    return MeasuredRows(group.rows, results, batched, group.is_complete)


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


def _parts(group: list[_Pending]) -> Iterable[list[_Pending]]:
    first = group[0].tensor
    limit = _STACK_LIMIT if first.device.type == "cpu" else _DEVICE_STACK_LIMIT
    per_part = max(1, limit // max(1, first.numel()))
    for start in range(0, len(group), per_part):
        yield group[start : start + per_part]


def _may_wait(tensor: torch.Tensor) -> bool:
    """Whether a tensor can be copied cheaply, whatever it is, and measured elsewhere."""
    return tensor.device.type == "cpu" and tensor.layout == torch.strided and not tensor.is_quantized


def _version(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _address(tensor: torch.Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError, ValueError):
        return 0


def _strides(tensor: torch.Tensor) -> tuple[int, ...]:
    return tensor.stride() if tensor.layout == torch.strided else ()
