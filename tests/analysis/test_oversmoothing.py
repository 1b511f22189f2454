"""Positions of a sample that become the same from layer to layer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from support.short_runs import Batch, findings, record


class _Rounds(nn.Module):
    """Rounds of messages between positions: a mean over neighbours, or attention, with or without a skip."""

    def __init__(self, attends: bool, skips: bool) -> None:
        super().__init__()
        self.read, self.answer, self.skips = nn.Linear(4, 16), nn.Linear(16, 4), skips
        make = (lambda: nn.MultiheadAttention(16, 2, batch_first=True)) if attends else (lambda: nn.Linear(16, 16))
        self.rounds = nn.ModuleList(make() for _ in range(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.read(x)
        for one in self.rounds:
            near = (x + x.roll(1, 1) + x.roll(2, 1) + x.roll(4, 1)) / 4
            y = one(x, x, x)[0] if isinstance(one, nn.MultiheadAttention) else one(near)
            x = x + y if self.skips else y
        return self.answer(x)


def _groups(number: int) -> Batch:
    generator = torch.Generator().manual_seed(number)
    group = torch.randint(4, (8, 8), generator=generator)
    return F.one_hot(group, 4) + 0.3 * torch.randn(8, 8, 4, generator=generator), group


@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize("attends", [False, True])
def test_positions_that_are_smoothed_into_one(attends: bool, skips: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = _Rounds(attends, skips)
    loss_of = lambda x, y: F.cross_entropy(model(x).flatten(0, 1), y.flatten())  # noqa: E731
    found = findings(record(tmp_path, model, loss_of, _groups, steps=50), "oversmoothing")
    assert bool(found) is not skips
    assert all(finding.node.startswith("model.rounds.") and "model" in finding.nodes for finding in found)


def test_one_answer_for_the_whole_sample(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = _Rounds(attends=True, skips=False)
    loss_of = lambda x, y: F.cross_entropy(model(x).mean(1), y[:, 0])  # noqa: E731
    assert not findings(record(tmp_path, model, loss_of, _groups, steps=50), "oversmoothing")


def test_layers_that_take_each_position_by_itself_smooth_nothing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = [layer for _ in range(5) for layer in (nn.Linear(16, 16), nn.Sigmoid())]
    model = nn.Sequential(nn.Linear(4, 16), *layers, nn.Linear(16, 4))
    loss_of = lambda x, y: F.cross_entropy(model(x).flatten(0, 1), y.flatten())  # noqa: E731
    trial = record(tmp_path, model, loss_of, _groups, steps=50)
    outputs = trial.step(48).tensor("model.10").statistics
    assert outputs["std"] < 0.2 * outputs["abs_max"]  # alike at all places, as sigmoids are
    assert not findings(trial, "oversmoothing")
