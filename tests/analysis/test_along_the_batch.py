"""What is added along the batch that should not be: encodings of places, and one number of the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from support.short_runs import Batch, findings, record

Targets = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Placed(nn.Module):
    """Classifies sequences ``(16, 5, 4)``; adds encodings of places in one of several ways."""

    waves: torch.Tensor

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.enter, self.leave = way, nn.Linear(4, 8), nn.Linear(8, 3)
        self.register_buffer("waves", torch.randn(32, 1, 8))
        if "learned" in way:
            self.table = nn.Embedding(32, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.enter(x)
        if self.way == "first dimension":
            h = h + self.waves[: h.size(0), :]
        elif self.way == "learned":
            h = h + self.table(torch.arange(h.shape[0]))[:, None]
        elif self.way == "in place, scaled":
            h += 0.1 * self.waves[: len(h)]
        elif self.way == "right":
            h = h + self.waves[: h.size(1)].transpose(0, 1)
        elif self.way == "learned, right":
            h = h + self.table(torch.arange(h.shape[1]))
        elif self.way == "learned, of each sample":
            h = h + self.table((x.sum((1, 2)) > 0).long())[:, None]
        elif self.way == "time first, right":
            h = (h.transpose(0, 1) + self.waves[: h.size(1)]).transpose(0, 1)
        return self.leave(h.tanh().mean(1))


def sequences(number: int) -> Batch:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(16, 5, 4, generator=generator), torch.randint(3, (16,), generator=generator)


def placed(folder: Path, way: str) -> list[tuple[str, str]]:
    model = Placed(way)
    trial = record(folder, model, lambda x, y: F.cross_entropy(model(x), y), sequences, steps=4)
    found = findings(trial, "batch-leak")
    return [(finding.level, finding.source.text if finding.source else "") for finding in found]


@pytest.mark.parametrize(
    ("way", "line"),
    [
        ("first dimension", "h = h + self.waves[: h.size(0), :]"),
        ("learned", "h = h + self.table(torch.arange(h.shape[0]))[:, None]"),
        ("in place, scaled", "h += 0.1 * self.waves[: len(h)]"),
    ],
)
def test_places_that_are_added_along_the_batch_are_told(way: str, line: str, tmp_path: Path) -> None:
    assert placed(tmp_path, way) == [("warning", line)]


@pytest.mark.parametrize("way", ["right", "learned, right", "learned, of each sample", "time first, right"])
def test_places_that_are_added_along_the_time_are_right(way: str, tmp_path: Path) -> None:
    assert placed(tmp_path, way) == []


def valued(folder: Path, targets: Targets) -> list[str]:
    """Learns values ``(16, 3)``; the targets are made of rewards and another net's values."""
    torch.manual_seed(0)
    net, goal = nn.Linear(6, 3), nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).requires_grad_(False)

    def moves(number: int) -> Batch:
        generator = torch.Generator().manual_seed(number)
        return (
            torch.randn(16, 6, generator=generator),
            torch.randn(16, generator=generator),
            torch.randn(16, 6, generator=generator),
        )

    def loss_of(here: torch.Tensor, reward: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        return (net(here)[:, 0] - targets(reward, goal(there))).square().mean()

    models = nn.ModuleDict({"net": net, "goal": goal})
    return [found.level for found in findings(record(folder, models, loss_of, moves, steps=4), "broadcast-target")]


@pytest.mark.parametrize(
    "targets",
    [
        lambda reward, values: reward + 0.9 * values.max(),
        lambda reward, values: (1 - (reward > 1).float()) * 0.9 * torch.amax(values) + reward,
        lambda reward, values: reward + 0.9 * (values.softmax(1) * values).sum(),
    ],
)
def test_one_number_of_the_whole_batch_in_the_targets_is_told(targets: Targets, tmp_path: Path) -> None:
    assert valued(tmp_path, targets) == ["warning"]


@pytest.mark.parametrize(
    "targets",
    [
        lambda reward, values: reward + 0.9 * values.max(1).values,
        lambda reward, values: reward + 0.9 * (values - values.max() + values.mean()).amax(1),
        lambda reward, values: (reward + values.amax(1)) * (1 / (1 + values.abs().max())),
        lambda reward, values: (reward - reward.mean()) / reward.std() + values.amax(1),
    ],
)
def test_one_number_for_each_sample_is_right(targets: Targets, tmp_path: Path) -> None:
    assert valued(tmp_path, targets) == []


class Listening(nn.Module):
    """Reads sounds ``(16, 10, 4)``, and says which of three signs it hears at each moment, moments first."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.read, self.say = nn.LSTM(4, 8, batch_first=way != "time first"), nn.Linear(8, 4)
        self.is_turned_late, self.is_turned_last = way == "turned behind", way == "turned last"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.is_turned_last:  # by whoever computes the loss
            return self.say(self.read(x)[0]).log_softmax(2)
        h = self.read(x)[0].transpose(0, 1) if self.is_turned_late else self.read(x.transpose(0, 1))[0]
        return self.say(h).log_softmax(2)


@pytest.mark.parametrize("way", ["turned before", "turned behind", "turned last", "time first"])
def test_a_ctc_loss_has_its_samples_along_the_second_dimension(way: str, tmp_path: Path) -> None:
    model, lengths = Listening(way), (torch.full((16,), 10), torch.full((16,), 3))

    def sounds(number: int) -> Batch:
        generator = torch.Generator().manual_seed(number)
        return torch.randn(16, 10, 4, generator=generator), torch.randint(1, 4, (16, 3), generator=generator)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        scores = model(x)
        return F.ctc_loss(scores.transpose(0, 1) if model.is_turned_last else scores, y, *lengths)

    found = findings(record(tmp_path, model, loss_of, sounds, steps=4), "batch-leak")
    assert [(finding.level, finding.node) for finding in found] == (
        [("warning", "model.read")] if way == "turned before" else []
    )
