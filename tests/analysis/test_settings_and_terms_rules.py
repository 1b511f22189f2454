"""Rules about odd settings of optimizers, weights that are clamped, and terms that have no say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from support.short_runs import blob_batches, curve_batches, descend, findings, mlp, only, record

SETTINGS = {
    "swapped betas": lambda p: torch.optim.Adam(p, 1e-2, betas=(0.999, 0.9)),
    "momentum of almost 1": lambda p: torch.optim.SGD(p, 1e-2, momentum=0.995),
    "ascent": lambda p: torch.optim.Adam(p, 1e-2, maximize=True),
    "usual": lambda p: torch.optim.Adam(p, 1e-2),
    "a critic's": lambda p: torch.optim.Adam(p, 1e-2, betas=(0.0, 0.9)),
    "heavy": lambda p: torch.optim.SGD(p, 1e-2, momentum=0.95, nesterov=True),
}


@pytest.mark.parametrize("how", SETTINGS)
def test_settings_that_hardly_anybody_means(how: str, tmp_path: Path) -> None:
    model = mlp(8, 16, 4)
    optimizer = SETTINGS[how](model.parameters())
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, optimizer=optimizer)
    found = findings(trial, "optimizer-settings")
    assert bool(found) == (how in ("swapped betas", "momentum of almost 1", "ascent"))
    assert all(finding.level == ("warning" if how == "ascent" else finding.level) for finding in found)


@pytest.mark.parametrize(("bound", "level"), [(0.01, "warning"), (0.25, "info"), (None, "")])
def test_weights_that_are_clamped(bound: float | None, level: str, tmp_path: Path) -> None:
    model = mlp(8, 32, 4)

    def train(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        descend(loss, optimizer)
        if bound is not None:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.clamp_(-bound, bound)

    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, train=train, steps=60)
    found = findings(trial, "clamped-weights")
    assert [finding.level for finding in found] == ([level] if level else [])
    assert all(finding.node == "model.0.weight" for finding in found)


@pytest.mark.parametrize(("weight", "told"), [(1e5, True), (1e-2, False)])
def test_a_term_that_has_no_say(weight: float, told: bool, tmp_path: Path) -> None:
    model = mlp(6, 16, 2)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        given = model(x)
        return F.mse_loss(given, y) + weight * (given - 7).abs().mean()

    trial = record(tmp_path, model, loss_of, curve_batches, lr=1e-3)
    if told:
        assert "has no say" in only(trial, "loss-balance").summary
    else:
        assert findings(trial, "loss-balance") == []


def test_a_term_that_weighs_little_is_small_on_purpose(tmp_path: Path) -> None:
    model = mlp(6, 16, 2)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        given = model(x)
        return F.mse_loss(given, y) + 1e-5 * F.l1_loss(given, torch.zeros_like(given))

    assert findings(record(tmp_path, model, loss_of, curve_batches), "loss-balance") == []
