"""Rules about what collapses: codes, representations, generators; on runs that have the problem, and on look-alikes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Every, Recorder
from stepscope.store import Trial, open_trial
from support.adversarial import adversarial_step
from support.short_runs import blob_batches, findings, mlp, only, record

RULES = ("posterior-collapse", "representation-collapse", "mode-collapse", "gan-balance")


# ---------------------------------------------------------------------- variational autoencoders


class Variational(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.decoder = nn.Linear(8, 16), mlp(4, 16, 8)
        self.fc_mu, self.fc_logvar = nn.Linear(16, 4), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = torch.relu(self.body(x))
        mu, logvar = self.fc_mu(hidden), self.fc_logvar(hidden)
        divergence = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum(1).mean()
        return self.decoder(mu + torch.randn_like(mu) * (logvar / 2).exp()), divergence


@pytest.mark.parametrize("weight", [0.1, 50.0])
def test_a_code_that_says_nothing(weight: float, tmp_path: Path) -> None:
    model = Variational()

    def loss(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        made, divergence = model(x)
        return F.mse_loss(made, x, reduction="sum") / len(x) + weight * divergence

    found = findings(record(tmp_path, model, loss, blob_batches, steps=120, every=6, lr=1e-2), *RULES)
    assert [(f.rule, f.node) for f in found] == ([("posterior-collapse", "model.fc_mu")] if weight > 1 else [])


# ---------------------------------------------------------------------- representations


@pytest.mark.parametrize("how", ["no negatives", "negatives"])
def test_a_representation_that_collapses(how: str, tmp_path: Path) -> None:
    model = mlp(8, 32, 16)

    def loss(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        one, two = (F.normalize(model(x + 0.2 * torch.randn_like(x)), dim=1) for _ in range(2))
        if how == "negatives":
            return F.cross_entropy(one @ two.T / 0.2, torch.arange(len(x)))
        return -(one * two).sum(1).mean()

    found = findings(record(tmp_path, model, loss, blob_batches, steps=100, every=5, lr=3e-2), *RULES)
    expected = [("representation-collapse", "error")] if how == "no negatives" else []
    assert [(f.rule, f.level) for f in found] == expected


def test_targets_that_hardly_vary_are_no_collapse(tmp_path: Path) -> None:
    model = mlp(8, 32, 8)
    goal = 30 + 0.1 * torch.randn(64, 8)
    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), goal), blob_batches, steps=80, every=5, lr=3e-2)
    assert findings(trial, *RULES) == []


# ---------------------------------------------------------------------- generators against critics


def fight(
    folder: Path, *, critic_rate: float = 1e-3, spread: float = 1.0, steps: int = 60, apart: float = 1.0
) -> Trial:
    generator, critic = mlp(4, 24, 2), mlp(2, 24, 1, activation=lambda: nn.LeakyReLU(0.2))
    optimizers: dict[str, Any] = {
        "generator": torch.optim.Adam(generator.parameters(), lr=1e-3 if spread == 1 else 1e-5),
        "critic": torch.optim.Adam(critic.parameters(), lr=critic_rate),
    }
    with torch.no_grad():
        generator[2].weight.mul_(spread)
    with Recorder(folder, trial="trial", schedule=Every(2), strict=True) as recorder:
        recorder.watch({"generator": generator, "critic": critic}, optimizers)
        for _ in range(steps):
            with recorder.step() as step:
                adversarial_step(step, generator, critic, optimizers, apart)
    return open_trial(folder / "trial")


def test_a_fair_fight(tmp_path: Path) -> None:
    assert findings(fight(tmp_path), *RULES) == []


def test_a_critic_that_wins(tmp_path: Path) -> None:
    finding = only(fight(tmp_path, critic_rate=3e-2, apart=6.0), "gan-balance")
    assert finding.node == "generator loss" and finding.nodes == ("critic loss",) and finding.step


def test_a_generator_that_makes_one_thing(tmp_path: Path) -> None:
    finding = only(fight(tmp_path, spread=1e-3, steps=20), "mode-collapse")
    assert finding.node == "generator" and finding.level == "warning"
