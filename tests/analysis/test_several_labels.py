"""The rule ``several-labels``, on targets that are a distribution and on targets that are none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from support.short_runs import findings, record

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def told(folder: Path, loss_of: Loss, change: Callable[[torch.Tensor], torch.Tensor], *rules: str) -> list[str]:
    def data(number: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(number)
        x, labels = torch.randn(16, 6, generator=generator), torch.rand(16, 5, generator=generator) > 0.6
        return x, change(labels.float())

    torch.manual_seed(0)
    model = nn.Linear(6, 5)
    trial = record(folder, model, lambda x, y: loss_of(model(x), y), data, steps=4)
    return [finding.level for finding in findings(trial, *rules)]


def by_hand(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return -(labels * scores.log_softmax(1)).sum(1).mean()


def divergence(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.kl_div(scores.log_softmax(1), labels, reduction="batchmean")


def as_they_are(labels: torch.Tensor) -> torch.Tensor:
    return labels


def one_hot(labels: torch.Tensor) -> torch.Tensor:
    return F.one_hot(labels.argmax(1), 5).float()


@pytest.mark.parametrize("loss_of", [F.cross_entropy, by_hand, divergence])
def test_several_labels_a_sample_are_told(loss_of: Loss, tmp_path: Path) -> None:
    assert told(tmp_path, loss_of, as_they_are, "several-labels") == ["warning"]


def test_soft_targets_that_were_not_normalised_are_worth_knowing(tmp_path: Path) -> None:
    assert told(tmp_path, F.cross_entropy, lambda labels: 100 * labels.softmax(1), "several-labels") == ["info"]


@pytest.mark.parametrize(
    "change",
    [
        one_hot,
        lambda labels: 0.9 * one_hot(labels) + 0.02,
        lambda labels: labels.softmax(1).half().float(),
        lambda labels: 3 * torch.rand(16, 1) * one_hot(labels),
        lambda labels: torch.randn(16, 1) * one_hot(labels),
        lambda labels: one_hot(labels) * labels,
    ],
)
def test_a_distribution_or_one_weighted_label_is_right(
    change: Callable[[torch.Tensor], torch.Tensor], tmp_path: Path
) -> None:
    assert told(tmp_path, F.cross_entropy, change, "several-labels") == []


def test_a_yes_or_no_for_each_class_is_right(tmp_path: Path) -> None:
    assert told(tmp_path, F.binary_cross_entropy_with_logits, as_they_are, "several-labels") == []


@pytest.mark.parametrize("loss_of", [by_hand, divergence])
def test_logarithms_are_not_to_reach_what_weighs_them(loss_of: Loss, tmp_path: Path) -> None:
    assert told(tmp_path, loss_of, one_hot, "unreachable-targets") == []
