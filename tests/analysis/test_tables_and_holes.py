"""Rows that decay unseen, weights from torch.rand, gaps filled with zeros, questions with one answer; look-alikes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from support.short_runs import Batch, findings, mlp, record

OPTIMIZERS = {
    "Adam": lambda p: torch.optim.Adam(p, 2e-2, weight_decay=1e-3),
    "Adagrad": lambda p: torch.optim.Adagrad(p, 0.2, weight_decay=1e-2),
    "AdamW": lambda p: torch.optim.AdamW(p, 2e-2, weight_decay=1e-3),
    "without": lambda p: torch.optim.Adam(p, 2e-2),
    "SGD": lambda p: torch.optim.SGD(p, 2e-2, weight_decay=1e-3),
}


@pytest.mark.parametrize("used", [0.1, 1.0])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rows_that_are_not_looked_up(name: str, used: float, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Embedding(200, 8), nn.Flatten(), nn.Linear(24, 1))

    def words(number: int) -> Batch:
        generator = torch.Generator().manual_seed(number)
        tokens = torch.randint(int(200 * used), (16 if used < 1 else 900, 3), generator=generator)
        return tokens, tokens[:, :1] / 200.0

    trial = record(
        tmp_path, model, lambda x, y: F.mse_loss(model(x), y), words, optimizer=OPTIMIZERS[name](model.parameters()),
        steps=50,
    )  # fmt: skip
    wrong = used < 1 and name in ("Adam", "Adagrad")
    assert [finding.level for finding in findings(trial, "decayed-rows")] == ["warning"] * wrong


class Mixing(nn.Module):
    """Multiplies with a matrix of its own."""

    def __init__(self, way: str) -> None:
        super().__init__()
        first = {"rand": torch.rand(8, 8), "positive": torch.rand(8, 8), "centred": torch.rand(8, 8) - 0.5}
        self.weight = nn.Parameter(first.get(way, torch.randn(8, 8) / 3))
        self.scale = nn.Parameter(torch.rand(8))
        self.head, self.way = nn.Linear(8, 4), way

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight.exp() if self.way == "positive" else self.weight
        return self.head((x @ weight) * self.scale)


@pytest.mark.parametrize("way", ["rand", "positive", "centred", "randn"])
def test_a_matrix_of_positive_numbers(way: str, tmp_path: Path) -> None:
    model = Mixing(way)

    def train(loss: torch.Tensor, optimizer: Any) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if way == "positive":
            with torch.no_grad():
                model.weight.clamp_(min=0)

    def rows(number: int) -> Batch:
        x = torch.randn(32, 8, generator=torch.Generator().manual_seed(number))
        return x, x[:, :4].argmax(1)

    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), rows, steps=30, lr=3e-2, train=train)
    assert [finding.node for finding in findings(trial, "positive-weights")] == ["model.weight"] * (way == "rand")


@pytest.mark.parametrize("way", ["filled", "left out", "other mean", "sparse from the start"])
def test_gaps_that_are_filled_with_zeros(way: str, tmp_path: Path) -> None:
    model = mlp(6, 24, 1)

    def rows(number: int) -> Batch:
        generator = torch.Generator().manual_seed(number)
        x = torch.randn(64, 6, generator=generator)
        y = 3 + x[:, 0] + 0.5 * x[:, 1]
        known = torch.rand(64, generator=generator) < 0.6
        if way == "sparse from the start" or (way == "filled" and number >= 30):
            y = y * known
        if way == "left out" and number >= 30:
            x, y = x[known], y[known]
        return x, y + 1 if way == "other mean" and number >= 30 else y

    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x)[:, 0], y), rows, steps=60, lr=3e-2)
    found = [f for f in findings(trial, "data-shift") if "zero" in f.summary]
    assert [(finding.node, finding.step) for finding in found] == [("target", 30)] * (way == "filled")


@pytest.mark.parametrize("way", ["never", "always", "now and then", "made in the step", "both"])
def test_questions_with_one_answer(way: str, tmp_path: Path) -> None:
    model = mlp(6, 24, 1)

    def rows(number: int) -> Batch:
        x = torch.randn(32, 6, generator=torch.Generator().manual_seed(number))
        answer = torch.full((32,), 1.0 if way == "always" else 0.0)
        if way == "now and then" and number == 13:
            answer[3] = 1.0
        return x, answer

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        scores = model(x)[:, 0]
        if way == "made in the step":
            return F.binary_cross_entropy_with_logits(scores, torch.zeros_like(scores)) + 0 * y.sum()
        loss = F.binary_cross_entropy_with_logits(scores, y)
        return loss + F.binary_cross_entropy_with_logits(model(x + 2)[:, 0], 1 - y) if way == "both" else loss

    trial = record(tmp_path, model, loss_of, rows, steps=24)
    expected = ["warning"] * (way in ("never", "always"))
    assert [finding.level for finding in findings(trial, "single-class")] == expected
