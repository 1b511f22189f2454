"""Mistakes in nets that make data out of noise, drawn by dice from the published collections of faults."""

from __future__ import annotations

from itertools import chain

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab

_Batch = tuple[torch.Tensor, ...]


class _TimeNet(nn.Module):
    """Says the noise in a noisy vector, given the time."""

    def __init__(self, features: int, width: int = 96) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(8, width), nn.SiLU(), nn.Linear(width, width))
        self.read = nn.Linear(features, width)
        self.body = nn.ModuleList(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(),
                                                nn.Linear(width, width)) for _ in range(2))  # fmt: skip
        self.out = nn.Linear(width, features)

    def forward(self, noisy: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        angles = time[:, None] * 3.1416 * 2.0 ** torch.arange(4)
        x = self.read(noisy) + self.time(torch.cat([angles.sin(), angles.cos()], 1))
        for block in self.body:
            x = x + block(x)
        return self.out(F.silu(x))


def _diffuse(clean: torch.Tensor, generator: torch.Generator) -> _Batch:
    """Vectors with more or less noise, how much it is, and the noise."""
    time = torch.rand(len(clean), generator=generator)
    noise = torch.randn(clean.shape, generator=generator)
    kept = (time * 1.5708).cos()[:, None]
    return kept * clean + (1 - kept**2).sqrt() * noise, time, noise


def _spiral(number: int) -> _Batch:
    """Points ``(192, 2)`` of a spiral on their way into noise."""
    generator = torch.Generator().manual_seed(number)
    turn = 2 + 8 * torch.rand(192, generator=generator)
    points = torch.stack([turn * turn.cos(), turn * turn.sin()], 1) / 4.2
    return _diffuse(points + 0.05 * torch.randn(192, 2, generator=generator), generator)


@broken(rules=("learning-rate",), words=("learning rate",), nodes=("model",))
def diffusion_at_the_rate_of_fine_tuning(lab: Lab) -> None:
    """A diffusion model begins from nothing with the learning rate of a fine-tuning, at which it hardly moves.

    Source: AutoTrainer (ICSE 2021), slow convergence, learning rate too small.
    """
    model = _TimeNet(2)
    rate = 2e-3 if lab.fixed else 5e-6  # set-up bug: diffusion_at_the_rate_of_fine_tuning
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-4)
    lab.recorder.watch(model, optimizer)
    for step in range(lab.steps):
        noisy, time, noise = _spiral(step)
        with lab.recorder.step("train"):
            loss = F.mse_loss(model(noisy, time), noise)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        lab.validate(lambda n: _spiral(9000 + n), lambda x, t, noise: F.mse_loss(model(x, t), noise), step)


def _households(number: int, *, scaled: bool) -> _Batch:
    """Six facts of households ``(128, 6)``, one of them the income in hundreds, on their way into noise."""
    generator = torch.Generator().manual_seed(number)
    wealth, age = torch.randn(2, 128, generator=generator)
    own = 0.2 * torch.randn(128, 5, generator=generator)
    facts = torch.stack([age, wealth - age, (wealth + age).tanh(), age**2 - 1, wealth.sign()], 1) + own
    income = wealth + 0.2 * torch.randn(128, generator=generator)
    if not scaled:
        income = 350 + 150 * income
    return _diffuse(torch.cat([facts, income[:, None]], 1), generator)


@broken(
    rules=("extreme-features", "input-scale"),
    words=("standardis", "scale the", "outweigh", "times larger than the", "different scales", "other scale"),
    nodes=("input", "model.read"),
)  # fmt: skip
def income_joined_after_the_scaling(lab: Lab) -> None:
    """The income of households is joined to five standardised facts as it is, in hundreds, and outweighs them.

    Source: SageMaker Debugger, rule FeatureImportanceOverweight, a feature that outweighs all others.
    """
    model = _TimeNet(6)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)

    def batches(number: int) -> _Batch:
        return _households(number, scaled=lab.fixed)  # set-up bug: income_joined_after_the_scaling

    def loss_of(noisy: torch.Tensor, time: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(noisy, time), noise)

    after = lab.validating(model, lambda number: batches(9000 + number), loss_of)
    lab.fit(model, batches, loss_of, optimizer, after=after)


def _flowers(number: int) -> _Batch:
    """Two measurements of flowers ``(96, 2)`` of three kinds, and the kind."""
    generator = torch.Generator().manual_seed(number)
    kind = torch.randint(3, (96,), generator=generator)
    centre = torch.tensor([[1.2, 0.0], [-0.6, 1.0], [-0.6, -1.0]])
    return centre[kind] + 0.2 * torch.randn(96, 2, generator=generator), kind


class _Gan(nn.Module):
    """A generator that is told the kind, and a discriminator that tells it, after Odena's AC-GAN."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(7, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 2))
        self.trunk = nn.Sequential(nn.Linear(2, 48), nn.LeakyReLU(0.2), nn.Linear(48, 48), nn.LeakyReLU(0.2))
        self.real, self.kind = nn.Linear(48, 1), nn.Linear(48, 3)

    def fakes(self, kind: torch.Tensor) -> torch.Tensor:
        return self.generator(torch.cat([torch.randn(len(kind), 4), F.one_hot(kind, 3).float()], 1))


@broken(
    rules=("unbounded-loss",),
    words=("log_softmax", "log-probabilities", "logsoftmax", "log probabilities", "softmax", "nll"),
    nodes=("model.kind", "loss"),
)  # fmt: skip
def kinds_of_flowers_without_softmax(lab: Lab) -> None:
    """The head of a GAN that tells the kind hands bare scores to the negative log-likelihood, which wants a softmax.

    Source: UMLAUT (CHI 2021), missing softmax before the loss.
    """
    model = _Gan()
    judge = torch.optim.Adam(chain(model.trunk.parameters(), model.real.parameters(), model.kind.parameters()), 2e-3)
    maker = torch.optim.Adam(model.generator.parameters(), 2e-3, betas=(0.5, 0.999))
    lab.recorder.watch(model, [judge, maker])

    def told(points: torch.Tensor, kind: torch.Tensor, truth: float) -> torch.Tensor:
        hidden = model.trunk(points)
        scores = model.kind(hidden)
        if lab.fixed:
            scores = F.log_softmax(scores, 1)
        says = model.real(hidden)
        genuine = F.binary_cross_entropy_with_logits(says, torch.full_like(says, truth))
        return genuine + F.nll_loss(scores, kind)  # bug: kinds_of_flowers_without_softmax

    for number in range(160):
        points, kind = _flowers(number)
        with lab.recorder.step("train"):
            judge.zero_grad()
            (told(points, kind, 1.0) + told(model.fakes(kind).detach(), kind, 0.0)).backward()
            judge.step()
            maker.zero_grad()
            told(model.fakes(kind), kind, 1.0).backward()
            maker.step()
        if number % 40 == 39:
            with torch.no_grad(), lab.recorder.step("validation") as step:
                genuine, kind = _flowers(9000 + number)
                step.record("distance", (model.fakes(kind) - genuine).pow(2).sum(1).mean())
