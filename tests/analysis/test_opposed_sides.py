"""Sides of a loss that are driven apart, labels of other rows, masks that are kept; and look-alikes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Recorder
from stepscope.store import open_trial
from support.short_runs import Batch, findings, mlp, record

STEPS = 60


def told(folder: Path, model: nn.Module, loss_of: Any, data: Any, rule: str, every: int = 2) -> list[str]:
    """The levels of what a rule finds."""
    trial = record(folder, model, loss_of, data, steps=STEPS, every=every, lr=2e-2)
    return [finding.level for finding in findings(trial, rule)]


def numbers(number: int) -> Batch:
    x = torch.randn(32, 8, generator=torch.Generator().manual_seed(number))
    return x, x[:, 0] + 0.5 * x[:, 1]


def correlation(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    one, two = one - one.mean(), two - two.mean()
    return (one * two).sum() / (one.norm() * two.norm() + 1e-6)


LOSSES = {
    "cosine": lambda p, y: F.cosine_similarity(p - p.mean(), y - y.mean(), dim=0),
    "by hand": correlation,
    "product": lambda p, y: (p.tanh() * y).mean(),
    "right": lambda p, y: 1 - correlation(p, y),
    "negative": lambda p, y: -correlation(p, y),
    "square": F.mse_loss,
    "distance of opposites": lambda p, y: F.mse_loss(p, -y),
}


@pytest.mark.parametrize("way", LOSSES)
def test_a_prediction_that_becomes_the_opposite(way: str, tmp_path: Path) -> None:
    model = mlp(8, 16, 1)
    levels = told(tmp_path, model, lambda x, y: LOSSES[way](model(x)[:, 0], y), numbers, "opposed-sides", every=1)
    assert levels == (["warning"] if way in ("cosine", "by hand", "product") else [])


PAIRS = {
    "triplet": lambda a, b: F.relu((a * b).sum(1) - (a * b.roll(1, 0)).sum(1) + 0.5).mean(),
    "softmax": lambda a, b: F.cross_entropy(-5 * a @ b.T, torch.arange(len(a))),
    "similarity": lambda a, b: F.cosine_similarity(a, b).mean() - (a @ b.T).mean(),
    "right triplet": lambda a, b: F.relu((a * b.roll(1, 0)).sum(1) - (a * b).sum(1) + 0.5).mean(),
    "right softmax": lambda a, b: F.cross_entropy(5 * a @ b.T, torch.arange(len(a))),
    "at right angles": lambda a, b: (a * b).sum(1).square().mean(),
}


@pytest.mark.parametrize("way", PAIRS)
def test_two_codes_of_a_sample_that_are_driven_apart(way: str, tmp_path: Path) -> None:
    model = nn.ModuleDict({"one": mlp(8, 32, 8), "two": mlp(8, 32, 8)})

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        noisy = x + 0.1 * torch.randn_like(x)
        return PAIRS[way](F.normalize(model["one"](x), dim=1), F.normalize(model["two"](noisy), dim=1))

    levels = told(tmp_path, model, loss_of, numbers, "opposed-sides")
    assert levels == (["warning"] if way in ("triplet", "softmax", "similarity") else [])


def texts(number: int) -> Batch:
    tokens = torch.randint(12, (16, 9), generator=torch.Generator().manual_seed(number))
    return tokens, tokens


WANTED = {
    "rolled": lambda t: t.roll(-1, 0),
    "sliced": lambda t: torch.cat([t[1:], t[:1]]),
    "right": lambda t: t.roll(-1, 1),
    "itself": lambda t: t,
    "reversed": lambda t: t.flip(1),
}


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("way", WANTED)
def test_labels_of_other_rows(way: str, flat: bool, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Embedding(12, 8), nn.Linear(8, 12))

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        wanted = WANTED[way](y)
        if flat:
            return F.cross_entropy(model(x).flatten(0, 1), wanted.flatten())
        return F.cross_entropy(model(x).transpose(1, 2), wanted)

    levels = told(tmp_path, model, loss_of, texts, "labels-of-others")
    assert levels == (["error"] if way in ("rolled", "sliced") else [])


class Dropping(nn.Module):
    """A dropout of its own."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.register_buffer("mask", (torch.rand(16) < 0.5).float())
        self.kept: torch.Tensor | None = None

    mask: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.way == "pruned":
            return x * self.mask
        if not self.training:
            return x
        if self.way == "from the first batch" and self.kept is None:
            self.kept = 2 * (torch.rand(16) < 0.5).float()
        if self.way == "drawn" or self.kept is None:
            return 2 * x * (self.mask if self.way == "made once" else (torch.rand(16) < 0.5).float())
        return x * self.kept


@pytest.mark.parametrize("way", ["made once", "from the first batch", "drawn", "pruned", "relu"])
def test_a_mask_that_is_kept(way: str, tmp_path: Path) -> None:
    drop = nn.ReLU() if way == "relu" else Dropping(way)
    model = nn.Sequential(nn.Linear(8, 16), drop, nn.Linear(16, 1))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with Recorder(tmp_path, trial="t", schedule={"*": 1}, strict=True) as recorder:
        recorder.watch(model, optimizer)
        for number in range(12):
            x, y = numbers(number)
            with recorder.step("train"):
                optimizer.zero_grad()
                F.mse_loss(model(x)[:, 0], y).backward()
                optimizer.step()
            if number % 4 == 3:
                model.eval()
                with torch.no_grad(), recorder.step("validation") as step:
                    step.record("loss", F.mse_loss(model(x)[:, 0], y), type="loss")
                model.train()
    found = findings(open_trial(tmp_path / "t"), "kept-mask")
    assert [finding.level for finding in found] == (["warning"] if way in ("made once", "from the first batch") else [])
