"""What is trained in the benchmarks: small, fixed pieces of work that run on one core in milliseconds to a second."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

NEVER = 10**9
"""An interval of steps, for recorders that can only be told how often."""


class Probe(Protocol):
    """What a workload tells of itself; Stepscope's ``Step`` is one, and each peer has its own."""

    def record(self, name: str, tensor: torch.Tensor, *, role: str | None = None, type: Any = "calculated") -> None: ...

    def iteration(self) -> AbstractContextManager[None]: ...


@dataclass(frozen=True)
class Training:
    """A model with what it learns from: ``loss(probe)`` is the whole forward pass."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Callable[[Probe], torch.Tensor]
    modules: dict[str, nn.Module]
    """What ``Recorder.watch`` is given."""
    batch: int

    def step(self, probe: Probe) -> None:
        """One step of training."""
        loss = self.loss(probe)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


@dataclass(frozen=True)
class Workload:
    """A named way to make a training from nothing."""

    name: str
    make: Callable[[], Training]
    rounds: int
    """How often it is timed."""
    bar: float | None = None
    """How many times the plain step a recorded one may take."""


def with_adam(
    model: nn.Module,
    loss: Callable[[Probe], torch.Tensor],
    *,
    batch: int,
    modules: dict[str, nn.Module] | None = None,
) -> Training:
    """A training with Adam, which keeps two states a parameter."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    return Training(model, optimizer, loss, modules or {"model": model}, batch)
