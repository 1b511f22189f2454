"""Frozen layers into which nothing was loaded, known by what initialisations give."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.store import Trial
from support.short_runs import blob_batches, descend, findings, mlp, record


def _told(trial: Trial) -> list[str]:
    return [found.level for found in findings(trial, "frozen-parameters") if "initial weights" in found.summary]


def _initialised(how: str) -> nn.Sequential:
    body = mlp(8, 64, 64, 64, last=[nn.ReLU()])
    for layer in body[::2]:
        if how == "xavier":
            nn.init.xavier_uniform_(layer.weight)
        if how == "he":
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
        if how == "transformer":
            nn.init.normal_(layer.weight, 0, 0.02)
            nn.init.zeros_(layer.bias)
    return body


def _with_head(folder: Path, body: nn.Module, head: nn.Module) -> Trial:
    body.requires_grad_(False)
    model = nn.ModuleDict({"body": body, "head": head})
    return record(folder, model, lambda x, y: F.cross_entropy(head(body(x)), y), blob_batches, steps=5)


@pytest.mark.parametrize("how", ["torch", "xavier", "he", "transformer"])
def test_a_backbone_into_which_nothing_was_loaded(how: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    assert _told(_with_head(tmp_path, _initialised(how), nn.Linear(64, 4))) == ["warning"]


@pytest.mark.parametrize("how", ["torch", "xavier", "he", "transformer"])
def test_a_backbone_that_has_learned_a_little(how: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    body, head = _initialised(how), nn.Linear(64, 4)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], 3e-3)
    for number in range(40):
        points, labels = blob_batches(number)
        descend(F.cross_entropy(head(body(points)), labels), optimizer)
    assert _told(_with_head(tmp_path, body, nn.Linear(64, 4))) == []


@pytest.mark.parametrize("how", ["one projection", "targets"])
def test_random_weights_that_may_be_meant(how: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    frozen, free = mlp(8, 32, 8), mlp(8, 32, 8)
    if how == "one projection":
        frozen, free = nn.Sequential(nn.Linear(8, 64)), nn.Sequential(nn.Linear(64, 8))
    frozen.requires_grad_(False)
    model = nn.ModuleDict({"a": nn.ModuleDict({"frozen": frozen, "free": free})})

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        if how == "one projection":
            return F.mse_loss(free(frozen(x).cos()), x)
        return F.mse_loss(free(x), frozen(x))

    assert _told(record(tmp_path, model, loss_of, blob_batches, steps=5)) == ["info"]


class _Adapted(nn.Module):
    """A frozen layer with a few weights beside it that learn."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.frozen = nn.Linear(features, 32).requires_grad_(False)
        self.down, self.up = nn.Linear(features, 2, bias=False), nn.Linear(2, 32, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.frozen(x) + self.up(self.down(x))


def test_adapters_beside_weights_that_a_test_leaves_as_they_are(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(_Adapted(8), nn.ReLU(), _Adapted(32))
    assert _told(record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, steps=5)) == ["info"]


@pytest.mark.parametrize(("learned", "level"), [(False, ["warning"]), (True, [])])
def test_a_backbone_that_the_optimizer_holds_as_well(learned: bool, level: list[str], tmp_path: Path) -> None:
    torch.manual_seed(0)
    body, head = _initialised("torch"), nn.Linear(64, 4)
    model = nn.ModuleDict({"body": body, "head": head})
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for number in range(40 if learned else 0):
        points, labels = blob_batches(number)
        descend(F.cross_entropy(head(body(points)), labels), optimizer)
    body.requires_grad_(False)
    trial = record(
        tmp_path, model, lambda x, y: F.cross_entropy(head(body(x)), y), blob_batches, optimizer=optimizer, steps=5
    )
    assert _told(trial) == level
