"""The rule ``sum-before-logarithm``; and single numbers whose logarithm is meant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from support.short_runs import Batch, findings, record


class Tastes(nn.Module):
    """Users and things, and how well they fit."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.things, self.size = nn.Embedding(20, 6), nn.Embedding(20, 6), nn.Parameter(torch.ones(()))

    def forward(self, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.users(chosen[:, 0]), self.things(chosen[:, 1]), self.things(chosen[:, 2])


def choices(number: int) -> Batch:
    return (torch.randint(20, (16, 3), generator=torch.Generator().manual_seed(number)),)


Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def told(folder: Path, loss_of: Loss) -> list[str]:
    model = Tastes()
    trial = record(folder, model, lambda chosen: loss_of(*model(chosen), model.size), choices, steps=3)
    found = findings(trial, "sum-before-logarithm")
    assert all("sum over the whole batch" in finding.summary for finding in found)
    return [finding.level for finding in found]


@pytest.mark.parametrize(
    "loss_of",
    [
        lambda u, p, n, _: -F.logsigmoid((u * (p - n)).sum()),
        lambda u, p, n, _: F.softplus(((u * n).sum(1) - (u * p).sum(1)).sum()),
        lambda u, p, n, _: -torch.log(torch.sigmoid((u * p).sum() - (u * n).sum())),
        lambda u, p, n, _: F.binary_cross_entropy_with_logits((u * (p - n)).sum(), torch.ones(())),
        lambda u, p, n, _: -F.logsigmoid((u * (p - n)).sum(1).sum() / 0.1) * 0.5,
    ],
)
def test_a_sum_over_the_batch(loss_of: Loss, tmp_path: Path) -> None:
    assert told(tmp_path, loss_of) == ["warning"]


@pytest.mark.parametrize(
    "loss_of",
    [
        lambda u, p, n, _: -F.logsigmoid((u * (p - n)).sum(1)).mean(),
        lambda u, p, n, _: -F.logsigmoid((u * (p - n)).sum(1)).sum(),
        lambda u, p, n, _: torch.log((u * n).sum(1).exp().sum()) - (u * p).sum(1).mean(),
        lambda u, p, n, _: torch.stack(
            [F.softplus((a * (c - b)).sum()) for a, b, c in zip(u, p, n, strict=True)]
        ).mean(),
        lambda u, p, n, size: F.softplus(size) * (u - p).square().sum(1).mean() - n.mean(),
        lambda u, p, n, _: torch.log((u - p).square().sum()) + n.square().mean(),
    ],
)
def test_a_sum_of_logarithms_and_other_single_numbers(loss_of: Loss, tmp_path: Path) -> None:
    assert told(tmp_path, loss_of) == []
