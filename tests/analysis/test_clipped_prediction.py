"""Predictions that are clipped before the loss, and clamps that do no harm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from support.short_runs import blob_batches, findings, mlp, record


def _cross_entropy(chance: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    chance = chance.clip(1e-6, 1 - 1e-6)
    return -(truth * chance.log() + (1 - truth) * (1 - chance).log()).mean()


_CLAMPS: dict[str, tuple[Callable[[torch.Tensor, torch.Tensor], torch.Tensor], bool]] = {
    "scores for chances": (_cross_entropy, True),
    "chances": (lambda out, y: _cross_entropy(out.sigmoid(), y), False),
    "a range for inference": (lambda out, y: F.mse_loss(torch.clamp(out, min=0.4, max=0.6), y), True),
    "a wide range": (lambda out, y: F.mse_loss(out.clamp(-50, 50), y), False),
    "one side": (lambda out, y: F.mse_loss(torch.clamp(out - 1, max=3.0), y - 1), False),
    "a hinge": (lambda out, y: torch.clamp(1 - out * (2 * y - 1), min=0).mean(), False),
}


@pytest.mark.parametrize("what", list(_CLAMPS))
def test_what_is_clipped_before_the_loss(what: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, (loss_of, told) = mlp(8, 16, 1), _CLAMPS[what]
    trial = record(tmp_path, model, lambda x, y: loss_of(model(x).squeeze(1), (y > 1).float()), blob_batches, steps=12)
    found = findings(trial, "clipped-prediction")
    assert [finding.level for finding in found] == ["warning"] * told
    for finding in found:
        assert finding.node == "model" and finding.source is not None
        assert "clip" in finding.source.text or "clamp" in finding.source.text


def test_a_clamp_between_layers_is_an_activation(tmp_path: Path) -> None:
    class Bounded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(8, 16), nn.Linear(16, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.two(self.one(x).clamp(0, 1))

    torch.manual_seed(0)
    model = Bounded()
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, steps=12)
    assert findings(trial, "clipped-prediction") == []


@pytest.mark.parametrize(("limit", "found"), [(2.0, ["warning"]), (200.0, [])])
def test_losses_of_samples_that_stand_at_their_limit(limit: float, found: list[str], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(8, 16, 8)

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        each = ((model(x) - x - 3) ** 2).sum(1)
        return each.clamp(max=limit).mean()

    trial = record(tmp_path, model, loss_of, blob_batches, steps=12)
    told = findings(trial, "clipped-prediction")
    assert [one.level for one in told] == found
    assert all(one.node == "loss" and one.source is not None and "clamp(max" in one.source.text for one in told)


def test_chances_that_a_net_has_bounded_itself_are_guarded_only(tmp_path: Path) -> None:
    class Chances(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp(8, 16, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sigmoid(1000 * self.body(x))

    torch.manual_seed(0)
    model = Chances()
    trial = record(
        tmp_path, model, lambda x, y: _cross_entropy(model(x).squeeze(1), (y > 1).float()), blob_batches, steps=12
    )
    assert findings(trial, "clipped-prediction") == []
