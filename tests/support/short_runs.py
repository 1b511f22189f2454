"""Short training runs, recorded for real, for the rules to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stepscope.analysis import Finding, diagnose
from stepscope.recorder import Every, Recorder
from stepscope.store import Trial, open_trial

Batch = tuple[torch.Tensor, ...]
_LONG = 60


def record(
    folder: Path,
    model: Any,
    loss_of: Callable[..., torch.Tensor],
    data: Callable[[int], Batch] | None = None,
    *,
    optimizer: Any = None,
    lr: float = 1e-2,
    steps: int = 30,
    every: int | None = None,
    train: Callable[[torch.Tensor, Any], None] | None = None,
    after: Callable[[Recorder], None] | None = None,
) -> Trial:
    """Train and record; ``loss_of(inputs, targets)`` computes the loss of what ``data(number)`` gave before the step.

    Without ``data`` it is ``loss_of(number, step)``. Of long runs every second step is recorded, unless told otherwise:
    what a test takes is mostly the recording.
    """
    if optimizer is None:
        optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=lr)
    with Recorder(
        folder, trial="trial", schedule=Every(every or (2 if steps >= _LONG else 1)), strict=True, if_exists="overwrite"
    ) as recorder:
        recorder.watch(model, optimizer)
        for number in range(steps):
            batch = data(number) if data is not None else ()
            with recorder.step() as step:
                loss = loss_of(*batch) if data is not None else loss_of(number, step)
                (train or descend)(loss, optimizer)
        if after is not None:
            after(recorder)
    return open_trial(folder / "trial")


def descend(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    """One step of gradient descent, done right."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def findings(trial: Trial, *rules: str) -> list[Finding]:
    """What these rules find, all levels of merging unfolded."""
    everything = [found for finding in diagnose(trial, rules=rules or None) for found in finding.walk()]
    assert not [found.summary for found in everything if "failed on this recording" in found.summary]
    return everything


def only(trial: Trial, rule: str) -> Finding:
    """The one finding of a rule."""
    found = findings(trial, rule)
    assert len(found) == 1, found
    return found[0]


def alarms(trial: Trial) -> list[str]:
    """Every warning and error, in words."""
    return [f"{f.rule} at {f.node}: {f.summary}" for f in findings(trial) if f.level != "info"]


def mlp(*sizes: int, activation: Callable[[], nn.Module] = nn.ReLU, last: Iterable[nn.Module] = ()) -> nn.Sequential:
    """Linear layers with an activation between them."""
    layers: list[nn.Module] = []
    for one, two in pairwise(sizes):
        layers += [nn.Linear(one, two), activation()]
    return nn.Sequential(*layers[:-1], *last)


def blobs(samples: int = 64, classes: int = 4, features: int = 8, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Points around the centres of classes: inputs of mean 0 and std 1, and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (samples,), generator=generator)
    centres = 2 * torch.randn(classes, features, generator=torch.Generator().manual_seed(99))
    points = centres[labels] + torch.randn(samples, features, generator=generator)
    return (points - points.mean(0)) / points.std(0), labels


def curve(samples: int = 64, features: int = 6, outputs: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs of mean 0 and std 1 and a smooth function of them, of either sign."""
    inputs = torch.randn(samples, features, generator=torch.Generator().manual_seed(seed))
    weights = torch.randn(features, outputs, generator=torch.Generator().manual_seed(98)) / features**0.5
    return inputs, 1.5 * torch.sin(inputs @ weights) + 0.5 * inputs[:, :outputs]


def blob_batches(number: int) -> Batch:
    """``blobs`` of a step."""
    return blobs(seed=number)


def curve_batches(number: int) -> Batch:
    """``curve`` of a step."""
    return curve(seed=number)


def images(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images with a bright quarter; which one is the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (32,), generator=generator)
    pixels = torch.randn(32, 1, 8, 8, generator=generator)
    for index, label in enumerate(labels.tolist()):
        row, column = 4 * (label // 2), 4 * (label % 2)
        pixels[index, 0, row : row + 4, column : column + 4] += 1.5
    return pixels - pixels.mean(), labels
