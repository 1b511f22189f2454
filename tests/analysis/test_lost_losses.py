"""The rule ``gradient-cut`` where a loss is computed, but is no part of what ``backward`` is called on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.analysis import diagnose
from support.short_runs import Batch, findings, record

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class Two(nn.Module):
    """Two heads on one trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.one, self.two = nn.Linear(6, 8), nn.Linear(8, 4), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = self.trunk(x).relu()
        return self.one(h), self.two(h)


def data(number: int) -> Batch:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(16, 6, generator=generator), torch.randint(4, (16,), generator=generator)


def loss_of(way: str, model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    one, two = model(x)
    first, second = F.cross_entropy(one, y), F.cross_entropy(two, y % 2)
    if way == "new tensor":
        return torch.tensor([first.item(), second.item()], requires_grad=True).sum()
    if way == "numpy":
        return torch.from_numpy(torch.stack([first, second]).detach().numpy()).requires_grad_().sum()
    if way == "data":
        return torch.autograd.Variable(first.data + second.data, requires_grad=True)
    if way == "one is a number":
        return first + second.item()
    if way == "one is forgotten":
        return first
    if way == "weighed by numbers":
        return first / first.item() + second * 0.5
    return first + second


@pytest.mark.parametrize(
    ("way", "level", "node"),
    [
        ("new tensor", "error", "loss"),
        ("numpy", "error", "loss"),
        ("data", "error", "loss"),
        ("one is a number", "warning", "cross_entropy"),
        ("one is forgotten", "warning", "cross_entropy"),
    ],
)
def test_a_loss_that_backward_does_not_reach_is_told(way: str, level: str, node: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Two()
    trial = record(tmp_path, model, lambda x, y: loss_of(way, model, x, y), data, steps=4)
    told = [(found.rule, found.level, found.node) for found in diagnose(trial) if found.level != "info"]
    assert told == [("gradient-cut", level, node)]


@pytest.mark.parametrize("way", ["weighed by numbers", "added"])
def test_losses_that_are_added_as_tensors_are_right(way: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Two()
    trial = record(tmp_path, model, lambda x, y: loss_of(way, model, x, y), data, steps=4)
    assert findings(trial, "gradient-cut", "unchanged-parameters") == []
