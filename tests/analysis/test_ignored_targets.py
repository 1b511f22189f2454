"""The rule ``ignored-targets``: what a loss leaves out, and blanks of a CTC loss; and what is left out rightly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.analysis import Finding
from support.short_runs import Batch, findings, mlp, record

Targets = Callable[[torch.Tensor, int], torch.Tensor]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def texts(targets: Targets) -> Callable[[int], Batch]:
    """Numbers ``(16, 12, 8)``, and a class of five for each moment, as far as it is asked for."""

    def batch(number: int) -> Batch:
        x = torch.randn(16, 12, 8, generator=torch.Generator().manual_seed(number))
        return x, targets((x[..., 0] * 2).round().clamp(-2, 2).long() + 2, number)

    return batch


def told(folder: Path, targets: Targets, loss_of: Loss, steps: int = 6) -> list[Finding]:
    model = mlp(8, 16, 5)
    trial = record(folder, model, lambda x, y: loss_of(model(x), y), texts(targets), steps=steps)
    return findings(trial, "ignored-targets")


def flat(scores: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(scores.flatten(0, 1), y.flatten())


def guarded(scores: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    each = F.cross_entropy(scores.transpose(1, 2), y, reduction="none")
    return each.sum() / (y != -100).sum().clamp(min=1)


def as_likelihood(scores: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return nn.NLLLoss(ignore_index=255, reduction="sum")(scores.log_softmax(2).flatten(0, 1), y.flatten())


def by_moments(scores: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """A loss for each moment, the first ones of which nobody asks for."""
    pairs = zip(scores.unbind(1), y.unbind(1), strict=True)
    return torch.stack([F.cross_entropy(*each, reduction="sum") for each in pairs]).sum()


def hidden(y: torch.Tensor, first: int, number: int = -100) -> torch.Tensor:
    """Ask for nothing before a moment."""
    return y.masked_fill(torch.arange(y.shape[1]) < first, number)


@pytest.mark.parametrize(
    ("targets", "loss_of"),
    [
        (lambda y, _: hidden(y, 12), guarded),
        (lambda y, _: hidden(y, 12, 255), as_likelihood),
        (lambda y, _: hidden(y, 12), by_moments),
    ],
)
def test_nothing_that_is_asked_for_is_an_error(targets: Targets, loss_of: Loss, tmp_path: Path) -> None:
    (found,) = told(tmp_path, targets, loss_of)
    assert found.level == "error"
    assert "in 6 of 6 training steps" in found.summary


def test_a_batch_without_any_makes_the_mean_no_number(tmp_path: Path) -> None:
    (found,) = told(tmp_path, lambda y, number: hidden(y, 12 if number == 4 else 3), flat)
    assert (found.level, found.step) == ("error", 4)
    assert "NaN" in found.summary


@pytest.mark.parametrize("number", [255, -100])
def test_one_class_that_is_left(number: int, tmp_path: Path) -> None:
    def loss_of(scores: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(scores.flatten(0, 1), y.flatten(), ignore_index=number)

    (found,) = told(tmp_path, lambda y, _: torch.where(y > 1, number, 0), loss_of)
    assert found.level == "warning"
    assert f"of one class, 0, in every training step: the others equal ignore_index={number}" in found.summary


@pytest.mark.parametrize(
    ("targets", "level"),
    [
        (lambda y, _: hidden(y, 8), []),
        (lambda y, number: hidden(y, 12 if number == 4 else 3), []),
        (lambda y, number: torch.where(y > 1, -100, 0) if number == 4 else hidden(y, 3), []),
        (lambda y, _: torch.zeros_like(y), []),  # imbalanced-targets tells
        (lambda y, _: torch.where(torch.arange(192).view(16, 12) < 6, y, -100), ["info"]),
    ],
)
def test_what_is_left_out_now_and_then_is_not_told(targets: Targets, level: list[str], tmp_path: Path) -> None:
    assert [found.level for found in told(tmp_path, targets, guarded)] == level


def test_moments_that_nobody_asks_for_are_usual(tmp_path: Path) -> None:
    assert told(tmp_path, lambda y, _: hidden(y, 8), by_moments) == []


@pytest.mark.parametrize(
    ("blank", "padded", "joined", "level"),
    [
        (0, False, False, ["error"]),
        (4, False, False, ["error"]),
        (0, False, True, ["error"]),
        (0, True, False, []),
        (5, False, False, []),
    ],
)
def test_a_blank_among_the_targets(blank: int, padded: bool, joined: bool, level: list[str], tmp_path: Path) -> None:
    model = nn.Linear(8, 6)

    def signs(y: torch.Tensor, _: int) -> torch.Tensor:
        return F.pad(y[:, :4].clamp(min=1), (0, 2)) if padded else y[:, :4]

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        lengths = torch.full((16,), 12), torch.full((16,), 4)
        return F.ctc_loss(model(x).log_softmax(2).transpose(0, 1), y.flatten() if joined else y, *lengths, blank)

    trial = record(tmp_path, model, loss_of, texts(signs), steps=4)
    found = findings(trial, "ignored-targets")
    assert [finding.level for finding in found] == level
    assert all(f"its blank ({blank})" in finding.summary for finding in found)
