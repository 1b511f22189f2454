"""Collects the tensors that are to be measured in a step, and measures equally shaped ones together."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch

from stepscope.recorder.elements import elements
from stepscope.recorder.memory import Holding, Rank
from stepscope.recorder.named import Named
from stepscope.recorder.ownership import is_alone
from stepscope.recorder.row_groups import Deferred, Group, MeasuredRows, Row, measure_group

_STACK_LIMIT = 1 << 20
"""Tensors are stacked up to this many elements: beyond, a copy costs more than the calls it saves."""
_DEVICE_STACK_LIMIT = 1 << 26
"""The same for other devices than the CPU, whose copies are fast and whose calls are not."""
_PENDING_BYTES = 256 << 20
"""How much memory of the user's tensors may wait to be measured before it is measured early."""

_AHEAD_BYTES = 32 << 20
"""From how much waiting memory on, and at each so much more, what can no longer change is measured ahead."""
_WORTH_AHEAD = 1 << 16
"""Elements of a tensor that is worth a word to the writer's thread of its own."""

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

    def stands_for(self, version: int, batch_dim: int | None) -> bool:
        """Whether the same tensor in this version, to be measured with this batch dimension, is unchanged."""
        return self.version == version and self.kind[2] == batch_dim


class Measurements:
    """What waits to be measured, and what has been.

    Tensors wait as detached aliases until the step ends, so that equal shapes can be measured in one go. Whoever
    sees that one is about to be changed in place calls ``measure_before_change`` first. Large ones that nobody else
    refers to any more are measured while the step goes on: what is done ``ahead`` is done by another thread, in order.
    Those with a batch are not, until it is known (``knows_samples``) which samples are kept.
    """

    def __init__(
        self,
        samples: int,
        held: Holding,
        ahead: Callable[[Callable[[], object]], None],
        *,
        knows_samples: bool = True,
    ) -> None:
        self.held = held
        self._knows_samples = knows_samples
        self._ahead = ahead
        self._is_sampled = False
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
        self._look_again = min(_AHEAD_BYTES, self._most_pending)

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
        ``batch_dim``: of the named tensor; one of its quantities need not have that dimension.
        """
        if tensor.__class__ is not torch.Tensor or tensor.is_nested:
            tensor = elements(tensor)
        count = tensor.numel()
        if batch_dim is not None and (count == 0 or tensor.dim() <= batch_dim):
            batch_dim = None
        is_large = at_once and 2 * count > _stack_limit(tensor)
        if at_once and not is_large and not owned:
            tensor, owned = tensor.clone(), True
        version = _UNCOUNTED if tensor.is_inference() else tensor._version
        key = id(tensor)
        waiting = self._by_identity.get(key)
        if waiting is not None and waiting.original() is tensor and waiting.stands_for(version, batch_dim):
            waiting.rows.append((named, quantity))
            return
        kind = (tensor.dtype, tensor.shape, batch_dim, neuron_limit, tensor.device, tensor.layout)
        size = 0 if held else count * tensor.dtype.itemsize
        kept = tensor if owned and not tensor.requires_grad else tensor.detach()
        pending = _Pending(weakref.ref(tensor), kept, version, [(named, quantity)], kind, owned, size)
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
        if self._bytes > self._look_again:
            self._make_room()

    def choose_samples(self, indices: tuple[int, ...]) -> bool:
        """Keep other samples than the first ones; False if it is too late for that."""
        if self._is_sampled and indices != self.sample_indices:
            return False
        self.sample_indices, self._knows_samples = indices, True
        return True

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
                self._bytes -= pending.bytes
                self._measure(pending.kind, [pending])

    def flush(self) -> None:
        """Measure everything that waits."""
        alike, self._alike, self._bytes = self._alike, {}, 0
        self._look_again = min(_AHEAD_BYTES, self._most_pending)
        self._unplaced.clear()
        self._by_storage.clear()
        self._by_identity.clear()
        for kind, waiting in alike.items():
            self._measure(kind, waiting)
            waiting.clear()

    def _make_room(self) -> None:
        """Let what can no longer change be measured ahead; measure all of it if too much still waits."""
        gone: set[int] = set()
        for kind, waiting in self._alike.items():
            if waiting and self._is_worth(kind):
                alone = [pending for pending in waiting if pending.owned or is_alone(pending.tensor)]
                gone.update([id(pending) for part in _parts(alone) if self._go_ahead(part, kind) for pending in part])
        if gone:
            self._forget(gone)
        if self._bytes > self._most_pending:
            self.flush()
        self._look_again = min(self._bytes + _AHEAD_BYTES, self._most_pending)

    def _is_worth(self, kind: _Kind) -> bool:
        """Whether tensors of a kind may be measured ahead, and are worth it."""
        _, shape, batch_dim, _, device, layout = kind
        is_usual = device.type == "cpu" and layout == torch.strided
        return is_usual and shape.numel() > _WORTH_AHEAD and (batch_dim is None or self._knows_samples)

    def _go_ahead(self, alike: list[_Pending], kind: _Kind) -> bool:
        """Let unchanged tensors that nobody else refers to be measured ahead, if there is room for that."""
        unchanged = self._unchanged(alike)
        if not unchanged:
            return True
        group = self._group(unchanged, kind)
        if not _may_wait(group.tensors[0]) or not self.held.take_free(_size(group), Rank.TENSORS):
            return False
        self._defer(group)
        return True

    def _forget(self, gone: set[int]) -> None:
        """Those that wait no longer, by their identity."""
        for kind, waiting in self._alike.items():
            self._bytes -= sum([pending.bytes for pending in waiting if id(pending) in gone])
            self._alike[kind] = [pending for pending in waiting if id(pending) not in gone]
        self._by_storage.clear()
        self._unplaced = [pending for waiting in self._alike.values() for pending in waiting]
        self._by_identity = {key: pending for key, pending in self._by_identity.items() if id(pending) not in gone}

    def _measure(self, kind: _Kind, waiting: list[_Pending]) -> None:
        """Measure tensors that are alike."""
        with torch.no_grad():
            for part in _parts(self._unchanged(waiting)):
                self._measure_alike(part, kind)

    def _unchanged(self, waiting: list[_Pending]) -> list[_Pending]:
        """Those that are as they were; the others are lost."""
        unchanged = []
        for pending in waiting:
            if pending.version == _UNCOUNTED or pending.tensor._version == pending.version:
                unchanged.append(pending)
            else:
                self.lost.extend(pending.rows)
        return unchanged

    def _measure_alike(self, alike: list[_Pending], kind: _Kind) -> None:
        """On the CPU, let the writer's thread measure what can no longer change; else measure it now."""
        group = self._group(alike, kind)
        if _may_wait(group.tensors[0]) and self.held.take(_size(group), Rank.TENSORS):
            kept = tuple([one.tensor if one.owned or is_alone(one.tensor) else one.tensor.clone() for one in alike])
            self._defer(replace(group, tensors=kept))
        else:
            self._measure_now(group)

    def _group(self, alike: list[_Pending], kind: _Kind) -> Group:
        tensors = tuple([pending.tensor for pending in alike])
        has_strides = kind[5] == torch.strided
        self._is_sampled = self._is_sampled or kind[2] is not None
        return Group(
            tensors,
            tuple([tuple(pending.rows) for pending in alike]),
            tuple([tensor.stride() if has_strides else () for tensor in tensors]),
            kind[2],
            kind[3],
            self.sample_indices,
            sum([pending.bytes for pending in alike]),
        )

    def _defer(self, group: Group) -> None:
        """Leave a group to the writer's thread; large ones at once, since their memory is wanted."""
        deferred = Deferred(group, self.held)
        self.done.append(deferred)
        if group.tensors[0].numel() > _WORTH_AHEAD:
            self._ahead(deferred.look)

    def _measure_now(self, group: Group) -> None:
        """Measure a group here and now; without detail, or not at all, if even its results have no room."""
        if not self.held.take(group.bytes_of_results, Rank.DETAIL):
            self.held.is_complete = False
            group = group.without_detail()
            if self.held.is_lost or not self.held.take(group.bytes_of_results, Rank.STATISTICS):
                self.held.is_lost = True
                return
        self.done += measure_group(group, self.faults)


def _size(group: Group) -> int:
    return group.bytes + group.bytes_of_results


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
