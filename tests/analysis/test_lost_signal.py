"""What a layer gives against what its weights would make of its inputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from support.short_runs import blob_batches, findings, record


class _Net(nn.Module):
    """Two layers, with something between the input and the first one, and behind it."""

    def __init__(self, before: Callable[[torch.Tensor], torch.Tensor], behind: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__()
        self.one, self.two = nn.Linear(8, 32), nn.Linear(32, 4)
        self.before, self.behind = before, behind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.behind(self.one(self.before(x))))


def _same(x: torch.Tensor) -> torch.Tensor:
    return x


@pytest.mark.parametrize(
    ("before", "behind", "lost"),
    [
        (_same, torch.relu, []),
        (lambda x: x / 255, torch.relu, ["model.one"]),
        (_same, lambda x: 1e-4 * x.tanh(), ["model.two"]),
        (lambda x: 300 * x, torch.sigmoid, []),
        (lambda x: F.normalize(x), lambda x: x.softmax(1), []),
    ],
    ids=["sound", "divided twice", "a factor", "squashed", "normalised"],
)
def test_a_signal_that_is_scaled_away(
    before: Callable[[torch.Tensor], torch.Tensor],
    behind: Callable[[torch.Tensor], torch.Tensor],
    lost: list[str],
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    model = _Net(before, behind)
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, lr=1e-3, steps=8)
    assert [finding.node for finding in findings(trial, "lost-signal")] == lost
