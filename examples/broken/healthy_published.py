"""Training runs of the trades that published collections of faults come from, in which nothing is wrong."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Categorical

from stepscope.examples.broken import data
from stepscope.examples.broken.lab import Lab

_Batch = tuple[torch.Tensor, ...]


class _Actor(nn.Module):
    """Chances of four moves, and what is to be expected."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 32), nn.Tanh())
        self.policy, self.value = nn.Linear(32, 4), nn.Linear(32, 1)

    def forward(self, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.body(seen)
        return self.policy(x), self.value(x).squeeze(1)


def best_of_four_moves_by_trial(lab: Lab) -> None:
    """A contextual bandit is solved by a policy gradient with a learned baseline and a little entropy."""
    model = _Actor()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    gains = torch.randn(6, 4, generator=torch.Generator().manual_seed(5)) / 6**0.5
    lab.recorder.watch(model, optimizer)
    for number in range(200):
        generator = torch.Generator().manual_seed(number)
        seen = torch.randn(128, 6, generator=generator)
        with lab.recorder.step("train"):
            scores, expected = model(seen)
            chances = Categorical(logits=scores)
            moves = chances.sample()
            rewards = (seen @ gains).gather(1, moves[:, None]).squeeze(1) + 0.1 * torch.randn(128, generator=generator)
            advantages = rewards - expected.detach()
            loss = -(advantages * chances.log_prob(moves)).mean()
            loss = loss + 0.5 * F.mse_loss(expected, rewards) - 0.01 * chances.entropy().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()


def views_of_one_digit_attract(lab: Lab) -> None:
    """Two noisy views of each picture find one another among those of all others, by a contrastive loss."""
    model = nn.Sequential(nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 32))
    same = torch.arange(64)

    def loss_of(pictures: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        views = torch.cat([pictures, pictures]) + 0.4 * torch.randn(2 * len(pictures), 64)
        first, second = F.normalize(model(views), dim=1).chunk(2)
        alike = first @ second.T / 0.2
        return (F.cross_entropy(alike, same) + F.cross_entropy(alike.T, same)) / 2

    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    lab.fit(model, data.draw(data.pixels()), loss_of, optimizer)


def _clouds(number: int) -> _Batch:
    """Up to twelve points ``(64, 12, 2)``, which of them are there ``(64, 12)``, and the spread of those ``(64,)``."""
    generator = torch.Generator().manual_seed(number)
    width = 0.3 + 1.4 * torch.rand(64, 1, 1, generator=generator)
    points = width * torch.randn(64, 12, 2, generator=generator)
    there = torch.arange(12) < torch.randint(5, 13, (64, 1), generator=generator)
    points = points * there[..., None]
    spread = (points.square().sum((1, 2)) / (2 * there.sum(1))).sqrt()
    return points, there, (spread - 1) / 0.45


class _Cloud(nn.Module):
    """Each point by itself, the mean of those that are there, one number."""

    def __init__(self) -> None:
        super().__init__()
        self.point = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        self.all = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, points: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        there = there[..., None].float()
        return self.all((self.point(points) * there).sum(1) / there.sum(1)).squeeze(1)


def spread_of_clouds_of_points(lab: Lab) -> None:
    """A net over sets, with a mask for those that are smaller, learns how wide apart points lie."""
    model = _Cloud()

    def loss_of(points: torch.Tensor, there: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(points, there), spread)

    after = lab.validating(model, lambda number: _clouds(7000 + number), loss_of)
    lab.fit(model, _clouds, loss_of, lr=3e-3, after=after)


class _Writer(nn.Module):
    """A layer of a transformer that sees the past only, and the table of letters at both ends."""

    def __init__(self, letters: int, width: int = 32) -> None:
        super().__init__()
        self.letters, self.places = nn.Embedding(letters, width), nn.Embedding(data.CONTEXT, width)
        for table in (self.letters, self.places):
            nn.init.normal_(table.weight, std=0.02)
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.1, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        length = text.shape[1]
        hidden = torch.triu(torch.ones(length, length, dtype=torch.bool), diagonal=1)
        x = self.letters(text) + self.places(torch.arange(length))
        return self.norm(self.layers(x, mask=hidden)) @ self.letters.weight.T


def letters_of_the_documentation(lab: Lab) -> None:
    """A small language model with tied letters, warm-up, cosine and clipped gradients."""
    _, letters = data.text()
    model = _Writer(letters)
    plain = [weight for weight in model.parameters() if weight.ndim < 2]
    matrices = [weight for weight in model.parameters() if weight.ndim >= 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=4e-3, betas=(0.9, 0.95))

    def factor(step: int) -> float:
        return (step + 1) / 15 if step < 15 else 0.55 + 0.45 * math.cos(math.pi * (step - 15) / 135)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    batches = data.characters(batch=12)
    lab.recorder.watch(model, optimizer)

    def loss_of(text: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(text).flatten(0, 1), following.flatten())

    after = lab.validating(model, lambda number: batches(9000 + number), loss_of)
    for number in range(150):
        with lab.recorder.step("train"):
            loss = loss_of(*batches(number))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        schedule.step()
        after(number)


class _Ratings(nn.Module):
    """Biases and vectors of users and films."""

    def __init__(self, users: int, films: int, width: int = 6) -> None:
        super().__init__()
        self.users, self.films = nn.Embedding(users, width), nn.Embedding(films, width)
        self.user_bias, self.film_bias = nn.Embedding(users, 1), nn.Embedding(films, 1)
        for table in (self.users, self.films, self.user_bias, self.film_bias):
            nn.init.normal_(table.weight, std=0.1)

    def forward(self, user: torch.Tensor, film: torch.Tensor) -> torch.Tensor:
        alike = (self.users(user) * self.films(film)).sum(1)
        return alike + self.user_bias(user).squeeze(1) + self.film_bias(film).squeeze(1)


def stars_of_two_hundred_users(lab: Lab) -> None:
    """Standardised ratings are factorised into vectors with biases, under a light weight decay."""
    taste = torch.Generator().manual_seed(3)
    users, films = torch.randn(200, 2, generator=taste), torch.randn(100, 2, generator=taste)
    loved = 0.6 * torch.randn(100, generator=taste)

    def batches(number: int) -> _Batch:
        generator = torch.Generator().manual_seed(number)
        user, film = torch.randint(200, (256,), generator=generator), torch.randint(100, (256,), generator=generator)
        stars = 0.55 * (users[user] * films[film]).sum(1) + loved[film] + 0.2 * torch.randn(256, generator=generator)
        return user, film, stars

    model = _Ratings(200, 100)

    def loss_of(user: torch.Tensor, film: torch.Tensor, stars: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(user, film), stars)

    optimizer = torch.optim.Adam(model.parameters(), lr=0.02, weight_decay=1e-5)
    after = lab.validating(model, lambda number: batches(6000 + number), loss_of)
    replace(lab, steps=220).fit(model, batches, loss_of, optimizer, after=after)
