"""Trains a base with a fault in it, records it, and finds out what harm the fault has done."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import torch
from torch import nn

from stepscope.examples.broken.lab import RECORDED_EVERY, SEED, Batches, Lab
from stepscope.examples.broken.seeded.bases import Base
from stepscope.examples.broken.seeded.fault import Fault
from stepscope.examples.broken.seeded.training import Training
from stepscope.recorder import Every, Recorder, Steps

UNSEEN = range(1000, 1010)
"""The numbers of the batches on which a trained model is tried: no training gets so far."""
HARM = 0.3
"""A fault does harm if at least this part of what the sound training learns is not learned."""
LEARNED = 0.1
"""A base in which the loss falls by a smaller share cannot show any harm."""


@dataclass
class Outcome:
    """The loss on unseen batches before and after a training, and where its fault lies; None where there was none."""

    before: float | None = None
    after: float | None = None
    nodes: tuple[str, ...] | None = None

    @property
    def has_learned(self) -> bool:
        if self.before is None or self.after is None or not math.isfinite(self.before):
            return False
        return self.before - self.after > LEARNED * abs(self.before)


@dataclass(frozen=True)
class Seeded:
    """A base with a fault in it.

    Attributes:
        nodes: where the fault lies.
        does_harm: whether the trained model is worse than it would be without.
    """

    base: str
    fault: Fault
    nodes: tuple[str, ...]
    does_harm: bool


class _HasNoPlace(Exception):
    """The training has nothing that the fault could break."""


class _EndsInAnError(Exception):
    """With the fault the training raises an error, which tells by itself that something is wrong."""


@dataclass(frozen=True)
class _SeedingLab(Lab):
    """Plants a fault into what is trained by ``fit``, and tries the model before and after."""

    fault: Fault | None = None
    random: Random = field(default_factory=Random)
    outcome: Outcome = field(default_factory=Outcome)

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
        optimizer = optimizer or torch.optim.Adam(model.parameters(), lr)
        self.outcome.before = _tried(model, batches, loss_of)
        with ExitStack() as patches:
            training = Training(model, batches, loss_of, optimizer, after, self.random, patches)
            if self.fault is not None:
                self.outcome.nodes = self.fault.plant(training)
                if self.outcome.nodes is None:
                    raise _HasNoPlace
            self._train(training)
        self.outcome.after = _tried(model, training.tried_on, loss_of)

    def _train(self, training: Training) -> None:
        try:
            super().fit(training.model, training.batches, training.loss_of, training.optimizer, after=training.after)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            if self.fault is None:
                raise
            raise _EndsInAnError from error


def learned(base: Base, folder: Path) -> Outcome:
    """Train a base without a fault."""
    return _train(base, None, folder / base.name)


def seed(base: Base, fault: Fault, sound: Outcome, folder: Path) -> Seeded | None:
    """Train a base with a fault in it, as the trial ``folder/BASE/FAULT``; None if the fault cannot be there.

    It cannot if it has no place, or if the training does not run with it. ``sound`` is what the base learns without.
    """
    try:
        found = _train(base, fault, folder / base.name)
    except (_HasNoPlace, _EndsInAnError):
        return None
    assert found.nodes is not None
    return Seeded(base.name, fault, found.nodes, _harm(sound, found) >= HARM)


def _harm(sound: Outcome, found: Outcome) -> float:
    """The share of what the sound training learns that is not learned."""
    assert sound.before is not None and sound.after is not None and found.after is not None
    lost = (found.after - sound.after) / (sound.before - sound.after)
    return lost if math.isfinite(lost) else math.inf


def _train(base: Base, fault: Fault | None, group: Path) -> Outcome:
    name = fault.name if fault else "sound"
    torch.manual_seed(SEED)
    schedule = {"train": Every(RECORDED_EVERY), "*": Every(1)} if fault else Steps(())  # of a sound one nobody asks
    with Recorder(group, trial=name, schedule=schedule, if_exists="overwrite") as recorder:
        lab = _SeedingLab(recorder, base.fixed, fault=fault, random=Random(f"{base.name} {name}"))
        base.train(lab)
    return lab.outcome


def _tried(model: nn.Module, batches: Batches, loss_of: Callable[..., torch.Tensor]) -> float | None:
    """The mean loss on unseen batches, in evaluation mode; None if there are none. Nothing is left changed."""
    modes = {module: module.training for module in model.modules()}
    state = torch.get_rng_state()
    try:
        unseen = [batches(number) for number in UNSEEN]
    except (LookupError, RuntimeError, ValueError):  # a list of batches, not a function of any number
        return None
    model.eval()
    losses = [loss_of(*batch).item() for batch in unseen]
    for module, mode in modes.items():
        module.training = mode
    torch.set_rng_state(state)
    return sum(losses) / len(losses)
