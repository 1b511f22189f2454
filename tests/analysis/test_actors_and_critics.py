"""Rules about the losses of a policy and of its critic, which may learn what it should not, or for nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Categorical, Normal

from stepscope.analysis.finding import Finding
from support.short_runs import blobs, findings, mlp, record


class Heads(nn.Module):
    """A trunk, the scores of four choices, and what the critic foresees ``(batch,)``."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.actor, self.critic = mlp(8, 16, 16), nn.Linear(16, 4), nn.Linear(16, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen = self.trunk(x).relu()
        return self.actor(seen), self.critic(seen)[:, 0]


def played(model: nn.Module, x: torch.Tensor, way: str) -> torch.Tensor:
    """The loss of an actor and its critic; the ``way`` says how the choice was made and what weighs it."""
    scores, value = model(x)
    if "normal" in way:
        chances = Normal(scores[:, 0], scores[:, 1].exp() + 0.1)
        choice = chances.sample()
        log_prob = chances.log_prob(choice)
    else:
        choice = Categorical(logits=scores).sample()
        log_prob = Categorical(logits=scores).log_prob(choice)
    if "entropies" in way:
        log_prob = -F.cross_entropy(scores, choice, reduction="none")
    if "ratio" in way:
        log_prob = (log_prob - log_prob.detach()).exp()
    returns = (choice > 1).float()
    if "bootstrapped" in way:
        with torch.no_grad():
            returns = returns + 0.9 * model(x.roll(1, 0))[1]
    advantage = returns - value
    weight = {"attached": advantage, "alone": returns, "scaled": (returns - returns.mean()) / (returns.std() + 1e-6)}
    loss = -(log_prob * weight.get(way.split()[0], advantage.detach())).mean()
    if "untrained" in way:
        return loss
    return loss + (F.smooth_l1_loss(value, returns) if "smooth" in way else advantage.pow(2).mean())


def told(folder: Path, way: str, rule: str) -> list[Finding]:
    torch.manual_seed(0)
    model = Heads()
    return findings(record(folder, model, lambda x, y: played(model, x, way), lambda n: blobs(seed=n), steps=6), rule)


ATTACHED = ["attached", "attached smooth", "attached normal", "attached entropies", "attached ratio",
            "attached bootstrapped"]  # fmt: skip
ALONE = ["alone", "alone smooth", "scaled", "scaled smooth"]
SOUND = ["detached", "detached smooth", "detached normal", "detached entropies", "detached ratio",
         "detached bootstrapped"]  # fmt: skip


@pytest.mark.parametrize("way", [*ATTACHED, *SOUND, "alone", "attached untrained"])
def test_a_critic_that_the_loss_of_the_policy_reaches(way: str, tmp_path: Path) -> None:
    found = told(tmp_path, way, "attached-advantage")
    assert [one.node for one in found] == (["model.critic"] if way in ATTACHED else [])
    for one in found:
        assert one.level == "warning" and one.source is not None and one.source.text.startswith("loss = -(log_prob")


@pytest.mark.parametrize("way", [*ALONE, *SOUND, "attached", "alone bootstrapped", "alone untrained"])
def test_a_critic_whose_guess_no_choice_is_weighed_by(way: str, tmp_path: Path) -> None:
    found = told(tmp_path, way, "unasked-critic")
    assert [one.node for one in found] == (["model.critic"] if way in ALONE else [])
    for one in found:
        assert one.level == "warning" and one.source is not None and one.source.text.startswith("loss = -(log_prob")
