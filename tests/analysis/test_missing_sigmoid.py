"""The rule ``activation-before-loss`` where binary_cross_entropy gets no probability; and what may be one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from support.short_runs import Batch, findings, mlp, only, record

RULE = "activation-before-loss"


def answers(number: int) -> Batch:
    x = torch.randn(32, 8, generator=torch.Generator().manual_seed(number))
    return x, (x[:, :1] > 0).float()


def cut(x: torch.Tensor) -> torch.Tensor:
    return x.clamp(1e-6, 1 - 1e-6)


class Alike(nn.Module):
    """How alike two views are: from 0 to 1, by a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(F.cosine_similarity(self.one(x), self.two(x)))[:, None]


class Rectified(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.last(x))


@pytest.mark.parametrize(
    "model", [mlp(8, 4, 1, last=[nn.ReLU()]), mlp(8, 4, 1), mlp(8, 4, 1, last=[nn.Tanh()]), Rectified()]
)
def test_what_is_no_probability_is_told(model: nn.Module, tmp_path: Path) -> None:
    trial = record(tmp_path, model, lambda x, y: F.binary_cross_entropy(cut(model(x)), y), answers, steps=4)
    found = only(trial, RULE)
    assert found.level == "error"
    assert "sigmoid is missing" in found.summary


@pytest.mark.parametrize(
    ("model", "end"),
    [
        (mlp(8, 4, 1, last=[nn.Sigmoid()]), cut),
        (mlp(8, 4, 1, last=[nn.Sigmoid()]), torch.Tensor.contiguous),
        (mlp(8, 4, 1), lambda scores: cut(0.2 * scores + 0.5)),
        (mlp(8, 4, 1, last=[nn.Tanh()]), lambda scores: cut((scores + 1) / 2)),
        (mlp(8, 4, 1), lambda scores: cut(1 - torch.exp(-scores.square()))),
        (Alike(), cut),
    ],
)
def test_what_may_be_one_is_not(model: nn.Module, end: Callable[[torch.Tensor], torch.Tensor], tmp_path: Path) -> None:
    trial = record(tmp_path, model, lambda x, y: F.binary_cross_entropy(end(model(x)), y), answers, steps=4)
    assert findings(trial, RULE) == []


def test_raw_scores_for_a_loss_of_logarithms_are_called_so(tmp_path: Path) -> None:
    model = mlp(8, 4, 3)
    trial = record(tmp_path, model, lambda x, y: F.nll_loss(model(x), y[:, 0].long()), answers, steps=4)
    assert "raw scores (log_softmax is missing)" in only(trial, RULE).summary
