"""Where the broken runs train: an open recorder, and a training loop without mistakes for those that need none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stepscope.recorder import Every, Recorder
from stepscope.store import Trial, open_trial

STEPS = 150
RECORDED_EVERY = 2
VALIDATE_EVERY = 30
SEED = 0
Batches = Callable[[int], tuple[torch.Tensor, ...]]
"""Gives the batch of a step by its number."""


@dataclass(frozen=True)
class Lab:
    """What a training function is given; ``fixed`` says whether to train without the mistake."""

    recorder: Recorder
    fixed: bool
    steps: int = STEPS

    def fit(
        self,
        model: nn.Module,
        batches: Batches,
        loss_of: Callable[..., torch.Tensor],
        optimizer: torch.optim.Optimizer | None = None,
        *,
        lr: float = 3e-3,
        after: Callable[[int], None] | None = None,
    ) -> None:
        """Train ``model`` with Adam, or the optimizer, on ``loss_of(*batch)``; ``after(number)`` follows each step."""
        optimizer = optimizer or torch.optim.Adam(model.parameters(), lr)
        self.recorder.watch(model, optimizer)
        for number in range(self.steps):
            batch = batches(number)
            with self.recorder.step("train"):
                loss = loss_of(*batch)
                descend(loss, optimizer)
            if after is not None:
                after(number)

    @torch.no_grad()
    def validate(self, batches: Batches, loss_of: Callable[..., torch.Tensor], number: int) -> None:
        """Record the loss on other data, every ``VALIDATE_EVERY`` steps."""
        if number % VALIDATE_EVERY == VALIDATE_EVERY - 1:
            batch = batches(number)
            with self.recorder.step("validation") as step:
                step.record("loss", loss_of(*batch), type="loss")

    def validating(
        self, model: nn.Module, batches: Batches, loss_of: Callable[..., torch.Tensor]
    ) -> Callable[[int], None]:
        """What is to follow each step of ``fit``: a validation of the model in evaluation mode, where one is due."""

        def after(number: int) -> None:
            model.eval()
            self.validate(batches, loss_of, number)
            model.train()

        return after


def descend(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    """One step of gradient descent, done right."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def record(name: str, train: Callable[[Lab], None], folder: Path | str, *, fixed: bool = False) -> Trial:
    """Train and record a run from the same random numbers each time, as the trial ``name`` or ``name fixed``."""
    trial = f"{name} fixed" if fixed else name
    torch.manual_seed(SEED)
    schedule: dict[str, Any] = {"train": Every(RECORDED_EVERY), "*": Every(1)}
    with Recorder(folder, trial=trial, schedule=schedule, if_exists="overwrite") as recorder:
        train(Lab(recorder, fixed))
    return open_trial(Path(folder) / trial)
