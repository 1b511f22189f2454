"""A finished step on its way to the writer's thread: plain numbers, and results that are on their way to the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from stepscope.recorder.frames import Place
from stepscope.recorder.memory import Holding
from stepscope.recorder.named import Named
from stepscope.recorder.row_groups import Deferred, MeasuredRows, measure_deferred
from stepscope.recorder.statistics import Measured

_CALL_BYTES = 256
_NAME_BYTES = 1024


@dataclass(frozen=True)
class StepJob:
    """Everything the writer's thread needs to make a ``StepRecord``.

    The lists of the trace are as in ``Trace``; ``named_nodes`` maps its nodes to indices of ``named``; ``spectral``
    holds copies of matrices whose largest singular value is still to be found. ``held`` is the memory of all this.
    ``calls`` is as in ``CallPlaces``, ``marks`` as in ``Trace``; ``edges`` are the sums of ``EdgeSums``.
    """

    number: int
    kind: str
    time: float
    seconds: float
    iterations: int
    named: Sequence[Named]
    parents: Sequence[tuple[int, ...]]
    carries_grad: Sequence[bool]
    operations: Sequence[str]
    places: Sequence[Place | None]
    named_nodes: dict[int, int]
    measured: HostCopy
    spectral: Sequence[tuple[Named, torch.Tensor]]
    sample_indices: tuple[int, ...]
    categories: tuple[str, ...]
    facts: dict[str, Any]
    held: Holding
    calls: Mapping[tuple[str, str], Place]
    marks: Mapping[int, str]
    edges: Mapping[int, torch.Tensor]

    @property
    def bytes_of_structure(self) -> int:
        """About what the job takes besides tensors and results: the trace, and the names."""
        return _CALL_BYTES * len(self.parents) + _NAME_BYTES * len(self.named)


class HostCopy:
    """Results on their way to the host: one asynchronous copy a device, awaited on the writer's thread.

    What was deferred is measured there. ``faults`` are those of tensors that could not be.
    """

    def __init__(self, groups: Sequence[MeasuredRows | Deferred]) -> None:
        self.faults: list[Exception] = []
        self._deferred = [group for group in groups if isinstance(group, Deferred)]
        self._groups = [group for group in groups if isinstance(group, MeasuredRows)]
        self._flat: dict[torch.device, tuple[torch.Tensor, torch.cuda.Event]] = {}
        for device in {group.results.overall.device for group in self._groups}:
            if device.type == "cuda":
                self._flat[device] = _start_copy([t for g in self._groups for t in _tensors(g, device)])

    def wait(self) -> list[MeasuredRows]:
        """The groups with all their results on the host."""
        offsets = dict.fromkeys(self._flat, 0)
        landed = []
        for _, event in self._flat.values():
            event.synchronize()
        for group in self._groups:
            device = group.results.overall.device
            if device in self._flat:
                group, offsets[device] = _landed(group, self._flat[device][0], offsets[device])
            landed.append(group)
        return landed + measure_deferred(self._deferred, self.faults)


def to_host(groups: Sequence[MeasuredRows | Deferred]) -> HostCopy:
    """Start copying the results to the host."""
    return HostCopy(groups)


def _tensors(group: MeasuredRows, device: torch.device) -> list[torch.Tensor]:
    values = (getattr(group.results, field.name) for field in fields(Measured))
    return [value for value in values if isinstance(value, torch.Tensor) and value.device == device]


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8)


def _start_copy(tensors: list[torch.Tensor]) -> tuple[torch.Tensor, torch.cuda.Event]:
    padded = [torch.nn.functional.pad(_bytes(t), (0, -(t.numel() * t.element_size()) % 8)) for t in tensors]
    flat = torch.cat(padded)
    host = torch.empty(flat.shape, dtype=torch.uint8, pin_memory=True)
    host.copy_(flat, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return host, event


def _landed(group: MeasuredRows, flat: torch.Tensor, offset: int) -> tuple[MeasuredRows, int]:
    changes: dict[str, torch.Tensor] = {}
    for field in fields(Measured):
        value = getattr(group.results, field.name)
        if isinstance(value, torch.Tensor):
            size = value.numel() * value.element_size()
            changes[field.name] = flat[offset : offset + size].view(value.dtype).view(value.shape)
            offset += size + (-size % 8)
    return replace(group, results=replace(group.results, **changes)), offset  # type: ignore[arg-type]
