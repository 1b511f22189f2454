"""The rules ``shifted-labels`` and ``hidden-end``, on small language models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from support.short_runs import Batch, findings, record

Loss = Callable[[nn.Module, torch.Tensor], torch.Tensor]


class Writer(nn.Module):
    """Scores of 20 tokens at each place."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.read, self.leave = nn.Embedding(20, 8), nn.GRU(8, 8, batch_first=True), nn.Linear(8, 20)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        return self.leave(self.read(self.embed(text))[0])


def texts(number: int) -> Batch:
    """Of 3 to 9 tokens ``(8, 12)``; zeros follow."""
    generator = torch.Generator().manual_seed(number)
    length = torch.randint(3, 10, (8, 1), generator=generator)
    tokens = torch.randint(1, 20, (8, 12), generator=generator)
    return (torch.where(torch.arange(12) < length, tokens, 0),)


def compared(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(scores.flatten(0, 1), labels.flatten())


def told(folder: Path, loss_of: Loss, rule: str) -> list[tuple[str, str]]:
    torch.manual_seed(0)
    model = Writer()
    trial = record(folder, model, lambda text: loss_of(model, text), texts, steps=8)
    return [(found.level, found.node) for found in findings(trial, rule)]


def later(text: torch.Tensor) -> torch.Tensor:
    """The next token at each place, as a loader gives it: an outsider to the recording."""
    return torch.from_numpy(text.roll(-1, 1).numpy().copy())


@pytest.mark.parametrize(
    ("loss_of", "level", "node"),
    [
        (lambda net, text: compared(net(text)[:, :-1], later(text)[:, 1:]), "warning", "target"),
        (lambda net, text: compared(net(text)[..., :-1, :], later(text)[..., 1:]), "warning", "target"),
        (lambda net, text: compared(net(text)[:, :-2], text[:, 2:]), "warning", "input"),
        (lambda net, text: compared(net(text)[:, 1:], text[:, :-1]), "info", "input"),
    ],
)
def test_labels_that_are_not_the_next_tokens_are_told(loss_of: Loss, level: str, node: str, tmp_path: Path) -> None:
    assert told(tmp_path, loss_of, "shifted-labels") == [(level, node)]


@pytest.mark.parametrize(
    "loss_of",
    [
        lambda net, text: compared(net(text), later(text)),
        lambda net, text: compared(net(text)[..., :-1, :], text[..., 1:]),
        lambda net, text: compared(net(text)[:, 4:], later(text)[:, 4:]),
        lambda net, text: compared(net(text)[:, 4:-1], text[:, 5:]),
        lambda net, text: compared(net(text), later(text)) + compared(net(text)[:, :-1], later(text)[:, 1:]),
    ],
)
def test_the_next_tokens_are_right(loss_of: Loss, tmp_path: Path) -> None:
    assert told(tmp_path, loss_of, "shifted-labels") == []


def masked(labels: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(labels.masked_fill(where, -100).numpy())


@pytest.mark.parametrize(
    "loss_of",
    [
        lambda net, text: compared(net(text[:, :-1]), masked(text[:, 1:], text[:, 1:] == 0)),
        lambda net, text: F.cross_entropy(
            net(text[:, :-1]).flatten(0, 1), torch.from_numpy(text[:, 1:].flatten().numpy()), ignore_index=0
        ),
    ],
)
def test_an_end_that_is_ignored_is_worth_knowing(loss_of: Loss, tmp_path: Path) -> None:
    assert told(tmp_path, loss_of, "hidden-end") == [("info", "target")]


@pytest.mark.parametrize(
    "loss_of",
    [
        lambda net, text: compared(net(text[:, :-1]), masked(text[:, 1:], text[:, :-1] == 0)),
        lambda net, text: compared(net(text[:, :-1]), torch.from_numpy(text[:, 1:].numpy().copy())),
    ],
)
def test_an_end_that_counts_is_right(loss_of: Loss, tmp_path: Path) -> None:
    assert told(tmp_path, loss_of, "hidden-end") == []
