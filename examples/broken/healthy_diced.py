"""Trainings of graph networks, diffusion models, views and recommenders in which nothing is wrong."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import mlp

_Batch = tuple[torch.Tensor, ...]


def _friends(number: int) -> _Batch:
    """Sixteen people ``(32, 16, 6)``, who knows whom ``(32, 16, 16)``, and which of three circles each belongs to."""
    generator = torch.Generator().manual_seed(number)
    circle = torch.randint(3, (32, 16), generator=generator)
    marks = torch.randn(3, 6, generator=torch.Generator().manual_seed(2))
    people = 0.8 * marks[circle] + torch.randn(32, 16, 6, generator=generator)
    chance = torch.where(circle[:, :, None] == circle[:, None], 0.6, 0.06)
    knows = (torch.rand(32, 16, 16, generator=generator) < chance).triu(1)
    return people, knows | knows.mT | torch.eye(16, dtype=torch.bool), circle


class _Attentive(nn.Module):
    """Attention over those whom each knows, after the graph attention network."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.value = nn.Linear(inputs, outputs)
        self.asks, self.asked = nn.Linear(outputs, 1, bias=False), nn.Linear(outputs, 1, bias=False)

    def forward(self, x: torch.Tensor, knows: torch.Tensor) -> torch.Tensor:
        value = self.value(x)
        scores = F.leaky_relu(self.asks(value) + self.asked(value).mT, 0.2)
        return scores.masked_fill(~knows, float("-inf")).softmax(2) @ value


def circles_of_friends(lab: Lab) -> None:
    """A graph attention network tells the circle of each of sixteen people."""
    model = nn.ModuleDict({"first": _Attentive(6, 32), "second": _Attentive(32, 32), "head": nn.Linear(38, 3)})

    def loss_of(people: torch.Tensor, knows: torch.Tensor, circle: torch.Tensor) -> torch.Tensor:
        hidden = F.elu(model["first"](people, knows))
        hidden = F.dropout(F.elu(model["second"](hidden, knows)), 0.1, model.training)
        return F.cross_entropy(model["head"](torch.cat([hidden, people], dim=2)).flatten(0, 1), circle.flatten())

    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=1e-3)
    lab.fit(model, _friends, loss_of, optimizer, after=lab.validating(model, lambda n: _friends(9000 + n), loss_of))


def _noisy(number: int, kept: torch.Tensor) -> _Batch:
    """Points on a circle ``(64, 2)`` with noise of a random time, the time ``(64, 8)`` as waves, and the noise."""
    generator = torch.Generator().manual_seed(50_000 + number)
    (points,) = data.circles(number)
    time = torch.randint(len(kept), (64,), generator=generator)
    noise = torch.randn(64, 2, generator=generator)
    share = kept[time][:, None]
    angles = torch.pi * time[:, None] / len(kept) * torch.arange(1, 5)
    return share.sqrt() * points + (1 - share).sqrt() * noise, torch.cat([angles.sin(), angles.cos()], 1), noise


def circle_out_of_noise(lab: Lab) -> None:
    """A diffusion model of points on a circle, with warm-up, clipped gradients, and averaged weights for validation."""
    kept = torch.cumprod(1 - torch.linspace(1e-3, 0.1, 60), 0)
    model = mlp(10, 64, 64, 2, activation=nn.SiLU)
    averaged = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 15))
    lab.recorder.watch(model, optimizer)
    for number in range(180):
        points, time, noise = _noisy(number, kept)
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            F.mse_loss(model(torch.cat([points, time], 1)), noise).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        schedule.step()
        for mean, parameter in zip(averaged.parameters(), model.parameters(), strict=True):
            mean.lerp_(parameter.detach(), 0.1)
        lab.validate(
            lambda n: _noisy(9000 + n, kept), lambda x, t, e: F.mse_loss(averaged(torch.cat([x, t], 1)), e), number
        )


class _Twin(nn.Module):
    """One encoder for two pictures, and how far they are apart."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 24, 3, stride=2, padding=1),
            nn.BatchNorm2d(24), nn.ReLU(), nn.Flatten(), nn.Linear(384, 16),
        )  # fmt: skip

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return (self.encoder(first) - self.encoder(second)).pow(2).mean(1).add(1e-6).sqrt()


def same_digit_or_another(lab: Lab) -> None:
    """A Siamese network learns with the contrastive loss whether two pictures show the same digit, in even shares."""
    x, digit = data.images()
    model = _Twin()

    def pairs(number: int, low: int = 0, high: int = 1100) -> _Batch:
        generator = torch.Generator().manual_seed(number)
        first = torch.randint(low, high, (64,), generator=generator)
        candidates = torch.randint(low, high, (64, 60), generator=generator)
        same = torch.arange(64) % 2 == 0
        fits = ((digit[candidates] == digit[first][:, None]) == same[:, None]).float()
        return x[first], x[candidates.gather(1, fits.argmax(1, keepdim=True))[:, 0]], same.float()

    def loss_of(first: torch.Tensor, second: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
        apart = model(first, second)
        return (same * apart.pow(2) + (1 - same) * F.relu(1.5 - apart).pow(2)).mean()

    after = lab.validating(model, lambda number: pairs(9000 + number, 1100, 1400), loss_of)
    lab.fit(model, pairs, loss_of, lr=2e-3, after=after)


def _bought(number: int) -> _Batch:
    """Who bought ``(256,)`` what, and what each did not."""
    generator = torch.Generator().manual_seed(number)
    taste = torch.Generator().manual_seed(12)
    buyers, goods = torch.randn(120, 3, generator=taste), torch.randn(90, 3, generator=taste)
    who = torch.randint(120, (256,), generator=generator)
    some, others = torch.randint(90, (2, 256), generator=generator)
    likes = (buyers[who] * (goods[some] - goods[others])).sum(1) + 0.5 * torch.randn(256, generator=generator)
    return who, torch.where(likes > 0, some, others), torch.where(likes > 0, others, some)


def what_buyers_prefer(lab: Lab) -> None:
    """Vectors of buyers and goods are learned by Bayesian personalised ranking, with a penalty on their lengths."""
    buyers, goods = nn.Embedding(120, 8), nn.Embedding(90, 8)
    for table in (buyers, goods):
        nn.init.normal_(table.weight, std=0.3)
    model = nn.ModuleDict({"buyers": buyers, "goods": goods})

    def loss_of(who: torch.Tensor, bought: torch.Tensor, left: torch.Tensor) -> torch.Tensor:
        buyer, good, other = model["buyers"](who), model["goods"](bought), model["goods"](left)
        ranking = -F.logsigmoid((buyer * (good - other)).sum(1)).mean()
        return ranking + 1e-3 * (buyer.pow(2) + good.pow(2) + other.pow(2)).sum(1).mean()

    lab.fit(model, _bought, loss_of, lr=3e-2, after=lab.validating(model, lambda n: _bought(9000 + n), loss_of))


def _hum(number: int, tones: tuple[float, ...]) -> _Batch:
    """Sounds of some tones ``(48, 1, 64)`` at any phase with noise, and which tone."""
    generator = torch.Generator().manual_seed(number)
    tone = torch.randint(len(tones), (48,), generator=generator)
    phase = 6.28 * torch.rand(48, 1, generator=generator)
    sound = 1.4 * (torch.tensor(tones)[tone][:, None] * torch.arange(64.0) + phase).sin()
    return (sound + 0.9 * torch.randn(48, 64, generator=generator))[:, None], tone


def new_head_on_learned_filters(lab: Lab) -> None:
    """Convolutions that know six tones keep their weights, as is meant, while a new head learns three other tones."""
    trunk = nn.Sequential(
        nn.Conv1d(1, 24, 9, stride=2), nn.ReLU(), nn.Conv1d(24, 32, 5, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(),
    )  # fmt: skip
    model = nn.Sequential(trunk, nn.Linear(32, 6))
    learning = torch.optim.Adam(model.parameters(), lr=4e-3)
    for number in range(120):
        sound, tone = _hum(number, (0.2, 0.45, 0.7, 1.0, 1.35, 1.8))
        descend(F.cross_entropy(model(sound), tone), learning)
    trunk.requires_grad_(False)
    model[1] = nn.Linear(32, 3)
    optimizer = torch.optim.Adam(model[1].parameters(), lr=1e-2)

    def loss_of(sound: torch.Tensor, tone: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(sound), tone)

    new = (0.32, 0.85, 1.55)
    after = lab.validating(model, lambda number: _hum(9000 + number, new), loss_of)
    lab.fit(model, lambda number: _hum(500 + number, new), loss_of, optimizer, after=after)
