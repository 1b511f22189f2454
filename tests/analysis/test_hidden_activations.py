"""An activation that ends a net without a name of its own: behind a squeeze, a slice, a view."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from support.short_runs import Batch, findings, record

End = Callable[[torch.Tensor], torch.Tensor]


class Ended(nn.Module):
    def __init__(self, end: End) -> None:
        super().__init__()
        self.hidden, self.out, self.end = nn.Linear(6, 8), nn.Linear(8, 1), end

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(self.out(torch.relu(self.hidden(x))))


def numbers(number: int) -> Batch:
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(16, 6, generator=generator)
    return x, x.sum(1)


def answers(number: int) -> Batch:
    x, y = numbers(number)
    return x, (y > 0).float()


@pytest.mark.parametrize(
    ("end", "rule"),
    [
        (lambda x: torch.relu(x).squeeze(1), ["unreachable-targets"]),
        (lambda x: torch.sigmoid(x)[:, 0], ["unreachable-targets"]),
        (lambda x: torch.tanh(x).view(-1), ["unreachable-targets"]),
        (lambda x: torch.tanh(3 * x).view(-1) * 4, []),
        (lambda x: x.squeeze(1), []),
    ],
)
def test_what_it_can_never_give_is_told(end: End, rule: list[str], tmp_path: Path) -> None:
    model = Ended(end)
    found = findings(record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), numbers, steps=12))
    told = [finding for finding in found if finding.rule == "unreachable-targets"]
    assert [finding.rule for finding in told] == rule
    assert all(finding.source is not None and "lambda x" in finding.source.text for finding in told)


@pytest.mark.parametrize(
    ("end", "level"), [(lambda x: torch.sigmoid(x).squeeze(1), ["error"]), (lambda x: x.squeeze(1), [])]
)
def test_a_loss_that_has_it_already_is_told(end: End, level: list[str], tmp_path: Path) -> None:
    model = Ended(end)
    trial = record(tmp_path, model, lambda x, y: F.binary_cross_entropy_with_logits(model(x), y), answers, steps=4)
    assert [finding.level for finding in findings(trial, "activation-before-loss")] == level


@pytest.mark.parametrize("end", ["sigmoid", "none"])
def test_a_loss_of_each_sample_has_it_too(end: str, tmp_path: Path) -> None:
    model = Ended(lambda x: (torch.sigmoid(x) if end == "sigmoid" else x).squeeze(1))

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(model(x), y, reduction="none").mean()

    found = findings(record(tmp_path, model, loss_of, answers, steps=4), "activation-before-loss")
    assert [finding.level for finding in found] == (["error"] if end == "sigmoid" else [])


@pytest.mark.parametrize(("end", "levels"), [("softmax", ["error"]), ("sigmoid", [])])
def test_pictures_are_no_shares_of_one(end: str, levels: list[str], tmp_path: Path) -> None:
    def pictures(number: int) -> Batch:
        x = torch.rand(12, 10, generator=torch.Generator().manual_seed(number))
        return x, x

    model = nn.Sequential(
        nn.Linear(10, 4), nn.ReLU(), nn.Linear(4, 10), {"softmax": nn.Softmax(1)}.get(end, nn.Sigmoid())
    )
    found = findings(record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), pictures, steps=12))
    assert [finding.level for finding in found if finding.rule == "unreachable-targets"] == levels


def test_shares_of_one_may_be_asked_for_by_a_distance(tmp_path: Path) -> None:
    def classes(number: int) -> Batch:
        x = torch.randn(12, 10, generator=torch.Generator().manual_seed(number))
        return x, F.one_hot(x[:, :4].argmax(1), 4).float()

    model = nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 4), nn.Softmax(1))
    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), classes, steps=12)
    assert not findings(trial, "unreachable-targets")


class Chooser(nn.Module):
    def __init__(self, end: nn.Module) -> None:
        super().__init__()
        self.values = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3), end)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.values(x).gather(1, x[:, :3].argmax(1, keepdim=True))[:, 0]


@pytest.mark.parametrize(("end", "rules"), [(nn.Softmax(1), 1), (nn.Identity(), 0)])
def test_chosen_numbers_are_those_of_their_activation(end: nn.Module, rules: int, tmp_path: Path) -> None:
    model = Chooser(end)
    found = findings(record(tmp_path, model, lambda x, y: F.smooth_l1_loss(model(x), y), numbers, steps=12))
    assert len([finding for finding in found if finding.rule == "unreachable-targets"]) == rules


@pytest.mark.parametrize("end", ["log_softmax", "sigmoid"])
def test_a_softmax_of_one_number_is_always_the_same(end: str, tmp_path: Path) -> None:
    model = Ended(lambda x: x.log_softmax(1) if end == "log_softmax" else x.sigmoid())
    trial = record(tmp_path, model, lambda x, y: F.binary_cross_entropy(model(x)[:, 0], y), answers, steps=4)
    found = findings(trial, "single-class")
    assert [finding.level for finding in found] == (["error"] if end == "log_softmax" else [])
    assert all(finding.source is not None and "log_softmax" in finding.source.text for finding in found)
