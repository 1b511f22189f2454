"""Softmax and sigmoid as hidden activations, and those that belong where they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from support.short_runs import blob_batches, findings, mlp, only, record


class Functional(nn.Module):
    """Normalises in front of the softmax, which has no module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm, self.head = nn.Linear(8, 32), nn.LayerNorm(32), nn.Linear(32, 4)
        self.act = Shares()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.act(self.norm(self.up(x))))


class Shares(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.softmax(x, dim=-1)


class Experts(nn.Module):
    """A gate weighs the answers of four layers."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.shares, self.head = nn.Linear(8, 4), nn.Softmax(-1), nn.Linear(16, 4)
        self.experts = nn.ModuleList(nn.Linear(8, 16) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answers = torch.stack([expert(x) for expert in self.experts], dim=1)
        return self.head((self.shares(self.gate(x)).unsqueeze(-1) * answers).sum(1).relu())


@pytest.mark.parametrize(
    ("model", "node"),
    [(mlp(8, 32, 4, activation=lambda: nn.Softmax(-1)), "model.1"), (Functional(), "model.act")],
    ids=["module", "function"],
)
def test_a_softmax_between_layers(tmp_path: Path, model: nn.Module, node: str) -> None:
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, steps=5)
    finding = only(trial, "hidden-softmax")
    assert finding.node == node and finding.level == "warning" and len(finding.nodes) == 2


@pytest.mark.parametrize("model", [Experts(), mlp(8, 32, 4, last=(nn.LogSoftmax(-1),))], ids=["gate", "output"])
def test_a_softmax_that_weighs_or_answers(tmp_path: Path, model: nn.Module) -> None:
    trial = record(tmp_path, model, lambda x, y: F.nll_loss(model(x).log_softmax(-1), y), blob_batches, steps=5)
    assert findings(trial, "hidden-softmax") == []


@pytest.mark.parametrize(("layers", "told"), [((8, 32, 32, 4), True), ((8, 32, 4), False)])
def test_sigmoids_one_behind_the_other(tmp_path: Path, layers: tuple[int, ...], told: bool) -> None:
    model = mlp(*layers, activation=nn.Sigmoid)
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, steps=5)
    found = findings(trial, "hidden-sigmoid")
    assert [(finding.level, finding.node) for finding in found] == [("info", "model.1")] * told
