"""Mistakes between those who act and those who judge, drawn from reports."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab
from stepscope.examples.broken.nets import mlp

_Batch = tuple[torch.Tensor, ...]
CITIES = 6


class _Traveller(nn.Module):
    """Encodes cities with attention, and points at one after the other; a critic guesses how long the tour will be."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Linear(2, width)
        self.encode = nn.TransformerEncoderLayer(width, 2, 64, dropout=0.0, batch_first=True)
        self.point = nn.Linear(2 * width, width)
        self.critic = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, cities: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The tour ``(batch, 6)``, the logarithm of its chance, and what the critic says ``(batch,)``."""
        code = self.encode(self.embed(cities))
        seen, now = torch.zeros(len(cities), CITIES), code.mean(1)
        tour, chances = [], []
        for _ in range(CITIES):
            query = self.point(torch.cat([now, code.mean(1)], dim=1))
            fits = 4 * ((code @ query[:, :, None])[:, :, 0] / 6).tanh() - 1e9 * seen
            choice = torch.distributions.Categorical(logits=fits)
            city = choice.sample()
            chances.append(choice.log_prob(city))
            tour.append(city)
            seen = seen.scatter(1, city[:, None], 1.0)
            now = code[torch.arange(len(code)), city]
        return torch.stack(tour, 1), torch.stack(chances, 1).sum(1), self.critic(code.mean(1).detach())[:, 0]


def _length(cities: torch.Tensor, tour: torch.Tensor) -> torch.Tensor:
    on_tour = cities.gather(1, tour[:, :, None].expand(-1, -1, 2))
    return (on_tour - on_tour.roll(1, 1)).norm(dim=2).sum(1)


@broken(words=("detach", "baseline"), nodes=("loss", "model.critic", "model.critic.2"))
def critic_taught_by_the_policy_loss(lab: Lab) -> None:
    """The critic's guess is not detached in the policy's loss, which pulls it away from the lengths of the tours.

    Source: astariul/encode-attend-navigate-pytorch pull request 3, critic values were not detached.
    """
    model = _Traveller()

    def batches(number: int) -> tuple[torch.Tensor]:
        return (torch.rand(48, CITIES, 2, generator=torch.Generator().manual_seed(number)),)

    def loss_of(cities: torch.Tensor) -> torch.Tensor:
        tour, log_prob, critic = model(cities)
        reward = _length(cities, tour)
        lab.recorder.scalar("length", reward.mean())
        predicted = critic.detach() if lab.fixed else critic
        policy = ((reward - predicted) * log_prob).mean()  # bug: critic_taught_by_the_policy_loss
        return policy + F.mse_loss(critic, reward)

    lab.fit(model, batches, loss_of, lr=2e-3)


@broken(words=("baseline", "advantage", "unused", "has no say"), nodes=("loss", "model.critic"))
def critic_that_nobody_asks(lab: Lab) -> None:
    """The policy's loss has the returns in it, not what they exceed the critic's values by: it is trained for nothing.

    Source: bentrevett/pytorch-rl issue 2, policy and value loss are independent in the actor-critic notebook.
    """
    net = nn.ModuleDict({"actor": mlp(6, 64, 4), "critic": mlp(6, 64, 1)})

    def rounds(number: int) -> _Batch:
        chance = torch.Generator().manual_seed(number)
        seen = torch.randn(64, 6, generator=chance)
        return seen, 3 * seen[:, 4] - 2 * seen[:, 5].abs(), seen[:, :4].argmax(1)

    def loss_of(seen: torch.Tensor, luck: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        choice = torch.distributions.Categorical(logits=net["actor"](seen))
        played = choice.sample()
        lab.recorder.scalar("right", (played == right).float().mean())
        returns = luck + (played == right).float()
        values = net["critic"](seen)[:, 0]
        weight = returns - values.detach() if lab.fixed else returns  # bug: critic_that_nobody_asks
        policy = -(weight * choice.log_prob(played)).mean()
        return policy + F.smooth_l1_loss(values, returns)

    lab.fit(net, rounds, loss_of, lr=1e-2)
