"""A small training run with something of everything, for tests that let the recorder fail in it."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Recorder, Step
from support.training import Fingerprint, Training, fingerprint, seed_everything

USERS_FILE = Path(__file__)
STEPS = 2
MADE_BEFORE = torch.ones(6, 4)
CONSTANT = torch.ones(6, 2)


class Injected(RuntimeError):
    """The fault that the tests inject."""


def make() -> Training:
    """Something of everything: dropout, in-place work, fused evaluation, iterations, loss groups, a hooked module."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Dropout(0.2), nn.Linear(8, 2), nn.BatchNorm1d(2))
    encoder = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return Training({"model": model, "encoder": encoder}, {"optimizer": optimizer}, lambda number: [])


def train_once(training: Training, step: Step, recorder: Recorder | None) -> list[torch.Tensor]:
    model, optimizer = training.models["model"], training.optimizers["optimizer"]
    optimizer.zero_grad()
    losses = []
    for _ in range(2):
        model(torch.randn(6, 4)).square().mean().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    for _ in range(2):
        with step.iteration():
            x = torch.randn(6, 4)
            with torch.no_grad():
                x = x + training.models["encoder"](x[None])[0]
            out = model(x)
            step.record("out", out)
            step.record("constant", CONSTANT)
            step.record("made before", MADE_BEFORE)
            losses.append(F.cross_entropy(out, torch.randint(2, (6,))))
            with step.loss_group("fit"):
                losses[-1].backward()
    if recorder is not None:
        recorder.scalar("loss", losses[-1])
    optimizer.step()
    return losses


@functools.lru_cache(maxsize=1)
def without_recorder(folder: Path) -> list[Fingerprint]:
    with Recorder(folder, enabled=False) as recorder:
        return train(recorder, watch=False)


def train(recorder: Recorder, *, watch: bool = True, steps: int = STEPS) -> list[Fingerprint]:
    seed_everything()
    training = make()
    if watch:
        recorder.watch(training.models, training.optimizers)
    found = []
    for _ in range(steps):
        with recorder.step() as step:
            losses = train_once(training, step, recorder)
        found.append(fingerprint(training, losses))
    return found
