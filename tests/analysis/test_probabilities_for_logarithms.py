"""The rule ``activation-before-loss`` where a loss wants logarithms, or exponentials, and gets something else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from support.short_runs import Batch, findings, record

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def data(number: int) -> Batch:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(16, 6, generator=generator), torch.randint(1, 5, (16,), generator=generator)


def spelled(log_probabilities: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """CTC of eight moments ``(8, 16, 5)`` that all say the same."""
    lengths = torch.full((16,), 8), torch.full((16,), 1)
    return F.ctc_loss(log_probabilities.expand(8, 16, 5), y[:, None], *lengths)


def normalised(scores: torch.Tensor) -> torch.Tensor:
    return scores.exp() / scores.exp().sum(1, keepdim=True)


def told(folder: Path, loss_of: Loss) -> list[str]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 5))
    trial = record(folder, model, lambda x, y: loss_of(model(x), y), data, steps=4)
    return [finding.level for finding in findings(trial, "activation-before-loss")]


@pytest.mark.parametrize(
    ("loss_of", "level"),
    [
        (lambda s, y: spelled(s.softmax(1), y), "error"),
        (lambda s, y: spelled(normalised(s), y), "error"),
        (spelled, "error"),
        (lambda s, y: F.nll_loss(normalised(s), y), "error"),
        (lambda s, y: F.cross_entropy(normalised(s), y), "error"),
        (lambda s, y: F.kl_div(normalised(s), torch.full((16, 5), 0.2), reduction="batchmean"), "error"),
        (lambda s, y: F.binary_cross_entropy_with_logits(1 / (1 + (-s).exp()), F.one_hot(y, 5).float()), "error"),
        (lambda s, y: F.poisson_nll_loss(s.exp(), F.one_hot(y, 5).float()), "warning"),
    ],
)
def test_the_wrong_kind_of_numbers_is_told(loss_of: Loss, level: str, tmp_path: Path) -> None:
    assert told(tmp_path, loss_of) == [level]


@pytest.mark.parametrize(
    "loss_of",
    [
        lambda s, y: spelled(s.log_softmax(1), y),
        lambda s, y: spelled(s.softmax(1).clamp(min=1e-6).log(), y),
        lambda s, y: F.nll_loss(s - s.logsumexp(1, keepdim=True), y),
        lambda s, y: F.poisson_nll_loss(s.exp(), F.one_hot(y, 5).float(), log_input=False),
        lambda s, y: F.mse_loss(s.softmax(1), F.one_hot(y, 5).float()),
    ],
)
def test_the_right_kind_is_not(loss_of: Loss, tmp_path: Path) -> None:
    assert told(tmp_path, loss_of) == []
