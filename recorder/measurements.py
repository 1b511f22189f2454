"""Collects the tensors that are to be measured in a step, and measures equally shaped ones together."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch

from stepscope.recorder.elements import elements
from stepscope.recorder.memory import Holding, Rank
from stepscope.recorder.named import Named
from stepscope.recorder.ownership import settled
from stepscope.recorder.row_groups import Deferred, Group, MeasuredRows, Row, measure_group

_STACK_LIMIT = 1 << 20
"""Tensors are stacked up to this many elements: beyond, a copy costs more than the calls it saves."""
_DEVICE_STACK_LIMIT = 1 << 26
"""The same for other devices than the CPU, whose copies are fast and whose calls are not."""
_PENDING_BYTES = 256 << 20
"""How much memory of the user's tensors may wait to be measured before it is measured early."""

_UNCOUNTED = -1
"""The version of tensors made in inference mode, which have none."""

_Kind = tuple[torch.dtype, torch.Size, "int | None", int, torch.device, torch.layout]
"""What tensors that are measured together share; the numbers are the batch dimension and the most neurons."""


@dataclass(eq=False, slots=True)
class _Pending:
    original: weakref.ref[torch.Tensor]
    tensor: torch.Tensor
    version: int
    rows: list[Row]
    kind: _Kind
    owned: bool
    bytes: int
    """What the tensor takes of the memory if it waits; 0 if that was taken before."""

    def stands_for(self, tensor: torch.Tensor, version: int, batch_dim: int | None) -> bool:
        """Whether this is the same tensor, unchanged, to be measured in the same way."""
        return self.original() is tensor and self.version == version and self.kind[2] == batch_dim


class Measurements:
    """What waits to be measured, and what has been.

    Tensors wait as detached aliases until the step ends, so that equal shapes can be measured in one go. Whoever
    sees that one is about to be changed in place calls ``measure_before_change`` first.
    """

    def __init__(self, samples: int, held: Holding) -> None:
        self.held = held
        self.sample_indices: tuple[int, ...] = tuple(range(samples))
        self.done: list[MeasuredRows | Deferred] = []
        self.lost: list[Row] = []
        self.faults: list[Exception] = []
        self._alike: dict[_Kind, list[_Pending]] = {}
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
        held: bool = False,
        at_once: bool = False,
    ) -> None:
        """Let a tensor wait to be measured. The tensor is kept alive until then, not its graph.

        ``owned``: the recorder made it and nobody writes to it. ``held``: its memory was taken before.
        ``at_once``: it is about to be changed, or dropped. A small one is copied, to be measured with others.
        """
        if tensor.__class__ is not torch.Tensor or tensor.is_nested:
            tensor = elements(tensor)
        is_large = at_once and 2 * tensor.numel() > _stack_limit(tensor)
        if at_once and not is_large and not owned:
            tensor, owned = tensor.clone(), True
        version = _UNCOUNTED if tensor.is_inference() else tensor._version
        key = id(tensor)
        waiting = self._by_identity.get(key)
        if waiting is not None and waiting.stands_for(tensor, version, batch_dim):
            waiting.rows.append((named, quantity))
            return
        kind = (tensor.dtype, tensor.shape, batch_dim, neuron_limit, tensor.device, tensor.layout)
        size = 0 if held else tensor.numel() * tensor.element_size()
        pending = _Pending(weakref.ref(tensor), tensor.detach(), version, [(named, quantity)], kind, owned, size)
        if is_large:
            self._measure(kind, [pending])
            return
        alike = self._alike.get(kind)
        if alike is None:
            alike = self._alike[kind] = []
        alike.append(pending)
        self._unplaced.append(pending)
        self._by_identity[key] = pending
        self._bytes += size
        if self._bytes > self._most_pending:
            self.flush()

    def measure_before_change(self, tensor: torch.Tensor) -> None:
        """Measure now whatever shares memory with a tensor that is about to be changed."""
        if not self._alike:
            return
        for pending in self._unplaced:  # where they lie is asked only if something is changed in place
            self._by_storage[_address(pending.tensor)].append(pending)
        self._unplaced.clear()
        touched = self._by_storage.pop(_address(tensor), None)
        if touched:
            self._by_identity.clear()
            for pending in touched:
                self._alike[pending.kind].remove(pending)
                self._measure(pending.kind, [pending])

    def flush(self) -> None:
        """Measure everything that waits."""
        alike, self._alike, self._bytes = self._alike, {}, 0
        self._unplaced.clear()
        self._by_storage.clear()
        self._by_identity.clear()
        for kind, waiting in alike.items():
            self._measure(kind, waiting)
            waiting.clear()

    def _measure(self, kind: _Kind, waiting: list[_Pending]) -> None:
        """Measure tensors that are alike."""
        unchanged = []
        for pending in waiting:
            if pending.version == _UNCOUNTED or pending.tensor._version == pending.version:
                unchanged.append(pending)
            else:
                self.lost.extend(pending.rows)
        with torch.no_grad():
            for part in _parts(unchanged):
                self._measure_alike(part, kind)

    def _measure_alike(self, alike: list[_Pending], kind: _Kind) -> None:
        """On the CPU, let the writer's thread measure what can no longer change; else measure it now."""
        tensors = tuple([pending.tensor for pending in alike])
        has_strides = kind[5] == torch.strided
        group = Group(
            tensors,
            tuple([tuple(pending.rows) for pending in alike]),
            tuple([tensor.stride() if has_strides else () for tensor in tensors]),
            kind[2],
            kind[3],
            self.sample_indices,
            sum([pending.bytes for pending in alike]),
        )
        if _may_wait(tensors[0]) and self.held.take(group.bytes + group.bytes_of_results, Rank.TENSORS):
            kept = tuple([settled(pending.tensor, owned=pending.owned) for pending in alike])
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


def _parts(group: list[_Pending]) -> Iterable[list[_Pending]]:
    if not group:
        return
    first = group[0].tensor
    per_part = max(1, _stack_limit(first) // max(1, first.numel()))
    for start in range(0, len(group), per_part):
        yield group[start : start + per_part]


def _stack_limit(tensor: torch.Tensor) -> int:
    return _STACK_LIMIT if tensor.device.type == "cpu" else _DEVICE_STACK_LIMIT


def _may_wait(tensor: torch.Tensor) -> bool:
    """Whether a tensor can be copied cheaply, whatever it is, and measured elsewhere."""
    return tensor.device.type == "cpu" and tensor.layout == torch.strided and not tensor.is_quantized


def _address(tensor: torch.Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError, ValueError):
        return 0
