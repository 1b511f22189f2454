"""Healthy training runs with unusual objectives: variational, contrastive, reinforced, distilled, noisy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.store import Trial
from support.short_runs import blob_batches, descend, mlp, record

STEPS = 100


def variational(folder: Path) -> Trial:
    model = nn.ModuleDict({"encoder": mlp(8, 32, 8), "decoder": mlp(4, 32, 8)})

    def loss(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        mean, log_variance = model["encoder"](x).chunk(2, dim=1)
        code = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1).mean()
        return F.mse_loss(model["decoder"](code), x, reduction="sum") / len(x) + divergence

    return record(folder, model, loss, blob_batches, steps=STEPS, lr=3e-3)


def contrastive(folder: Path) -> Trial:
    model = mlp(8, 64, 16)

    def loss(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        one, two = (F.normalize(model(x + 0.2 * torch.randn_like(x)), dim=1) for _ in range(2))
        return F.cross_entropy(one @ two.T / 0.2, torch.arange(len(x)))

    return record(folder, model, loss, blob_batches, steps=STEPS, lr=3e-3)


def policy_gradient(folder: Path) -> Trial:
    model = mlp(8, 32, 4, activation=nn.Tanh)

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        policy = torch.distributions.Categorical(logits=model(x))
        action = policy.sample()
        reward = (action == y).float()
        return -(policy.log_prob(action) * (reward - reward.mean())).mean() - 0.01 * policy.entropy().mean()

    return record(folder, model, loss, blob_batches, steps=STEPS, lr=3e-3)


def target_network(folder: Path) -> Trial:
    online, target = mlp(8, 32, 4), mlp(8, 32, 4)
    target.load_state_dict(online.state_dict())
    model = nn.ModuleDict({"online": online, "target": target})
    count = iter(range(STEPS))

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        action = torch.randint(4, (len(x), 1))
        with torch.no_grad():
            goal = (action[:, 0] == y).float() + 0.5 * target(x.flip(0)).max(1).values
        return F.smooth_l1_loss(online(x).gather(1, action)[:, 0], goal)

    def train(value: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        descend(value, optimizer)
        if next(count) % 10 == 9:
            target.load_state_dict(online.state_dict())

    optimizer = torch.optim.Adam(online.parameters(), lr=3e-3)
    return record(folder, model, loss, blob_batches, optimizer=optimizer, steps=STEPS, train=train)


def distilled(folder: Path) -> Trial:
    model = nn.ModuleDict({"teacher": mlp(8, 64, 4).requires_grad_(False), "student": mlp(8, 32, 4)})

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            soft = F.softmax(model["teacher"](x), dim=1)
        said = model["student"](x)
        return F.kl_div(F.log_softmax(said, 1), soft, reduction="batchmean") + F.cross_entropy(said, y)

    return record(folder, model, loss, blob_batches, steps=STEPS, lr=3e-3)


def annealed(folder: Path) -> Trial:
    model = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)

    def train(value: torch.Tensor, given: torch.optim.Optimizer) -> None:
        descend(value, given)
        schedule.step()

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), y)

    return record(folder, model, loss, blob_batches, optimizer=optimizer, steps=STEPS, train=train)


def focal(folder: Path) -> Trial:
    model = mlp(8, 32, 32, 4, activation=nn.GELU)

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        likelihood = F.log_softmax(model(x), dim=1)[torch.arange(len(y)), y]
        return -((1 - likelihood.exp()) ** 2 * likelihood).mean()

    return record(folder, model, loss, blob_batches, steps=STEPS, lr=3e-3)


HEALTHY_OBJECTIVES: dict[str, Callable[[Path], Trial]] = {
    make.__name__: make
    for make in (variational, contrastive, policy_gradient, target_network, distilled, annealed, focal)
}
"""Recorded training runs by name; each takes a folder and gives the trial."""
