"""The rule ``single-unit``; and single numbers that are meant."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from support.short_runs import Batch, findings, mlp, only, record


def series(number: int) -> Batch:
    x = torch.randn(8, 5, 32, generator=torch.Generator().manual_seed(number))
    return x, x[..., :3].cumsum(1)


class Tagger(nn.Module):
    """A recurrent layer, and what reads it."""

    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.layer, self.out = layer, nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(F.dropout(torch.relu(self.layer(x)[0]), 0.1))


class Attentive(nn.Module):
    """One score for each moment, by which the moments are weighed."""

    def __init__(self) -> None:
        super().__init__()
        self.score, self.out = nn.Linear(32, 1), nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.score(x).softmax(1) * x)


class Beside(nn.Module):
    """One number that is given to the next layer beside many others."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.out = nn.Linear(32, 1), nn.Linear(33, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.cat([self.one(x), x], dim=2))


class Scored(nn.Module):
    """One number, which is the answer; and a matrix of the model's own."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.eye(32))
        self.body, self.head = nn.Linear(32, 40), nn.Linear(40, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x @ self.mix).tanh()).expand(-1, -1, 3)


@pytest.mark.parametrize(
    ("model", "node"),
    [
        (Tagger(nn.LSTM(32, 1, batch_first=True, bidirectional=True), 2), "model.layer"),
        (Tagger(nn.GRU(32, 1, batch_first=True), 1), "model.layer"),
        (mlp(32, 64, 1, 16, 3), "model.2"),
    ],
)
def test_a_hidden_layer_of_one_unit(model: nn.Module, node: str, tmp_path: Path) -> None:
    found = only(record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), series, steps=3), "single-unit")
    assert (found.level, found.node) == ("info", node)


@pytest.mark.parametrize(
    "model", [Tagger(nn.GRU(32, 8, batch_first=True), 8), Attentive(), Beside(), Scored(), mlp(32, 2, 3)]
)
def test_single_numbers_that_are_meant(model: nn.Module, tmp_path: Path) -> None:
    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), series, steps=3)
    assert findings(trial, "single-unit") == []
