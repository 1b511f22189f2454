"""Training runs with rivals, spikes, policies and equations in which nothing is wrong."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import mlp


class _Spike(torch.autograd.Function):
    """One where a potential is positive, else zero; its gradient is that of a soft step."""

    @staticmethod
    def forward(ctx: Any, potential: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(potential)
        return (potential > 0).float()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        (potential,) = ctx.saved_tensors
        return gradients[0] / (1 + 4 * potential.abs()).square()


class _Spiking(nn.Module):
    """Neurons that gather current over six moments, leak a part of it, and send ones when they have enough."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(64, width), nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        current = self.into(x)
        potential, scores = torch.zeros_like(current), torch.zeros(len(x), 10)
        for _ in range(6):
            potential = 0.8 * potential + current
            spikes = _Spike.apply(potential - 1)  # type: ignore[no-untyped-call]
            potential = potential - spikes.detach()
            scores = 0.9 * scores + self.out(spikes)
        return scores / 6


def spiking_neurons(lab: Lab) -> None:
    """A spiking net, whose hidden values are zeros and ones, learns digits by a surrogate gradient."""
    model = _Spiking()
    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y), lr=5e-3)


def wasserstein_with_a_penalty(lab: Lab) -> None:
    """A critic without bounds, trained twice a step with a penalty on its slope, and a generator of points."""
    generator, critic = mlp(4, 48, 2), mlp(2, 48, 48, 1, activation=lambda: nn.LeakyReLU(0.2))
    make, judge = (torch.optim.Adam(net.parameters(), 3e-3, betas=(0.0, 0.9)) for net in (generator, critic))
    lab.recorder.watch({"generator": generator, "critic": critic}, [make, judge])

    def toll(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        between = torch.lerp(real, fake, torch.rand(len(real), 1)).requires_grad_()
        (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        return (slope.norm(dim=1) - 1).square().mean()

    for number in range(lab.steps):
        with lab.recorder.step("train") as step:
            for part in range(2):
                (real,) = data.circles(2 * number + part)
                fake = generator(torch.randn(len(real), 4)).detach()
                with step.loss_group("critic"):
                    descend(critic(fake).mean() - critic(real).mean() + toll(real, fake), judge)
            with step.loss_group("generator"):
                descend(-critic(generator(torch.randn(64, 4))).mean(), make)


class _Archer(nn.Module):
    """Aims at what it sees with a spread of its own, and guesses how good that will be."""

    def __init__(self) -> None:
        super().__init__()
        self.aim, self.guess = mlp(4, 32, 2, activation=nn.Tanh), mlp(4, 32, 1, activation=nn.Tanh)
        self.log_spread = nn.Parameter(torch.full((2,), -0.5))

    def forward(self, place: torch.Tensor) -> torch.distributions.Normal:
        return torch.distributions.Normal(self.aim(place), self.log_spread.exp())


Shots = tuple[torch.Tensor, ...]


def _shoot(model: _Archer, number: int) -> Shots:
    """Places, shots, how likely these were, and how good: the nearer to what the place says, the better."""
    place = torch.randn(128, 4, generator=torch.Generator().manual_seed(number))
    with torch.no_grad():
        ways = model(place)
        shot = ways.sample()
    return place, shot, ways.log_prob(shot).sum(1), -(shot - place[:, :2].sin()).square().sum(1)


def clipped_policy(lab: Lab) -> None:
    """Proximal policy optimisation: each batch of shots is learned from five times, within a clipped ratio."""
    model = _Archer()
    shots: Shots = ()

    def batches(number: int) -> Shots:
        nonlocal shots
        if number % 5 == 0:
            shots = _shoot(model, number)
        return shots

    def loss_of(place: torch.Tensor, shot: torch.Tensor, before: torch.Tensor, reward: torch.Tensor) -> torch.Tensor:
        ways, guess = model(place), model.guess(place)[:, 0]
        gain = reward - guess.detach()
        gain = (gain - gain.mean()) / (gain.std() + 1e-6)
        ratio = (ways.log_prob(shot).sum(1) - before).exp()
        surrogate = torch.minimum(ratio * gain, ratio.clamp(0.8, 1.2) * gain).mean()
        return 0.5 * F.mse_loss(guess, reward) - surrogate - 0.01 * ways.entropy().sum(1).mean()

    lab.fit(model, batches, loss_of, lr=1e-2)


def heat_equation(lab: Lab) -> None:
    """A net solves the heat equation by L-BFGS, from the same places in each step, and knows no data at all."""
    model = mlp(2, 20, 20, 1, activation=nn.Tanh)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4, history_size=20, line_search_fn="strong_wolfe")
    lab.recorder.watch(model, optimizer)
    inside, line = torch.rand(64, 2), torch.linspace(0, 1, 16)[:, None]
    start = torch.cat([line, torch.zeros_like(line)], dim=1)
    walls = torch.cat([torch.cat([torch.full_like(line, end), line], dim=1) for end in (0.0, 1.0)])

    def slopes(of: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(of.sum(), by, create_graph=True)[0]

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        place = inside.clone().requires_grad_()
        first = slopes(model(place), place)
        residual = first[:, 1] - 0.2 * slopes(first[:, 0], place)[:, 0]
        begun = model(start) - (math.pi * line).sin()
        loss = residual.square().mean() + begun.square().mean() + model(walls).square().mean()
        loss.backward()
        return loss

    for _ in range(lab.steps // 3):
        with lab.recorder.step("train"):
            optimizer.step(closure)
