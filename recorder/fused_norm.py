"""The norm of many tensors in one fused call, read without waiting for a device."""

from __future__ import annotations

import math
from collections import deque
from typing import Any, NamedTuple

import torch

from stepscope.recorder.tracer import UNSEEN

_MOST_WAITING = 256
"""Norms that may be on their way from a device; what is more is not looked at."""


class Reading(NamedTuple):
    """The norm of some tensors after a step."""

    name: str
    step: int
    kind: str
    value: float


class _OnItsWay(NamedTuple):
    name: str
    step: int
    kind: str
    host: torch.Tensor
    event: Any


class NormReader:
    """Takes norms, and gives them once they are known: on the CPU at once, from a GPU when the copy has arrived."""

    def __init__(self) -> None:
        self._known: deque[Reading] = deque()
        self._on_their_way: deque[_OnItsWay] = deque()

    def take(self, name: str, tensors: list[torch.Tensor], step: int, kind: str) -> None:
        """Take the norm of all of the tensors together. Those without plain memory are left out."""
        with torch.no_grad(), UNSEEN():
            norms = _norms(tensors) if len(tensors) > 1 or tensors[0].numel() > 1 else tensors
            if not norms:
                return
            if all(norm.device.type == "cpu" for norm in norms):
                self._known.append(Reading(name, step, kind, math.hypot(*[norm.item() for norm in norms])))
            elif len(self._on_their_way) < _MOST_WAITING and not torch.cuda.is_current_stream_capturing():
                self._on_their_way.append(_sent(name, norms, step, kind))

    def ready(self) -> list[Reading]:
        """The readings that have become known, in order."""
        while self._on_their_way and self._on_their_way[0].event.query():
            arrived = self._on_their_way.popleft()
            self._known.append(Reading(arrived.name, arrived.step, arrived.kind, float(arrived.host)))
        found = list(self._known)
        self._known.clear()
        return found


def can_be_read(tensor: torch.Tensor) -> bool:
    """Whether the norm of a tensor is a number that can be had without waiting."""
    return tensor.device.type in ("cpu", "cuda") and tensor.is_floating_point()


def _norms(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    try:
        if not any(tensor.dtype is torch.float16 for tensor in tensors):  # where the norm of many would overflow
            return list(torch._foreach_norm(tensors))
    except (RuntimeError, NotImplementedError, TypeError):
        pass  # some of them are sparse, say
    plain = [tensor for tensor in tensors if _is_plain(tensor)]
    return [torch.linalg.vector_norm(tensor, dtype=torch.float32) for tensor in plain]


def _is_plain(tensor: torch.Tensor) -> bool:
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.layout != torch.strided or tensor.is_nested:
        return False
    return can_be_read(tensor)


def _sent(name: str, norms: list[torch.Tensor], step: int, kind: str) -> _OnItsWay:
    """Start to copy the norm of the norms to the host."""
    device = next(norm.device for norm in norms if norm.device.type == "cuda")
    together = torch.stack([norm.to(device, torch.float32, non_blocking=True) for norm in norms])
    host = torch.empty((), dtype=torch.float32, pin_memory=True)
    host.copy_(torch.linalg.vector_norm(together), non_blocking=True)
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return _OnItsWay(name, step, kind, host, event)
