"""Training runs with tables, ratings, equations and averages in which nothing is wrong."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import mlp

_Batch = tuple[torch.Tensor, ...]


class _Ranker(nn.Module):
    """Users and films have codes in tables with sparse gradients."""

    def __init__(self, users: int = 300, films: int = 200, width: int = 12) -> None:
        super().__init__()
        self.user = nn.Embedding(users, width, sparse=True)
        self.film = nn.Embedding(films, width, sparse=True)
        for table in (self.user, self.film):
            nn.init.normal_(table.weight, std=0.1)

    def forward(self, user: torch.Tensor, film: torch.Tensor) -> torch.Tensor:
        return (self.user(user) * self.film(film)).sum(1)


def pairs_ranked_by_sparse_adam(lab: Lab) -> None:
    """A recommender learns to put what was liked before what was not: few rows have gradients, the start is flat."""
    model = _Ranker()

    def batches(number: int) -> _Batch:
        generator = torch.Generator().manual_seed(number)
        user = torch.randint(300, (128,), generator=generator)
        place = torch.randint(50, (128,), generator=generator)
        liked, other = 4 * place + user % 4, 4 * place.flip(0) + (user + 1 + place % 3) % 4
        return user, liked, other

    def loss_of(user: torch.Tensor, liked: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return -F.logsigmoid(model(user, liked) - model(user, other)).mean()

    lab.fit(model, batches, loss_of, torch.optim.SparseAdam(model.parameters(), 2e-2))


def few_weights_left_by_the_lasso(lab: Lab) -> None:
    """A proximal step sets to zero what does not matter: of 60 weights of a linear regression six are left."""
    model = nn.Linear(60, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    truth = torch.zeros(60, 1)
    truth[::10] = torch.tensor([2.0, -1.5, 1.0, 3.0, -2.0, 1.5])[:, None]

    def batches(number: int) -> _Batch:
        generator = torch.Generator().manual_seed(number)
        x = torch.randn(96, 60, generator=generator)
        return x, x @ truth + 0.5 * torch.randn(96, 1, generator=generator)

    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        x, y = batches(number)
        with lab.recorder.step("train"):
            descend(F.mse_loss(model(x), y), optimizer)
            with torch.no_grad():
                model.weight.copy_(F.softshrink(model.weight, 0.05 * 0.3))


def scaled_in_half_precision(lab: Lab) -> None:
    """Mixed precision with a scaler that starts too high, skips its first steps, and then accumulates two batches."""
    model = mlp(30, 32, 1, activation=nn.GELU)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20, growth_interval=60)
    lab.recorder.watch(model, optimizer)
    batches = data.draw(data.tumours(), 48)
    for number in range(2 * lab.steps // 3):
        with lab.recorder.step("train") as step:
            for part in range(2):
                x, y = batches(2 * number + part)
                with step.iteration():
                    with torch.autocast("cpu", torch.float16):
                        scores = model(x)[:, 0]
                    loss = F.binary_cross_entropy_with_logits(scores.float(), y) / 2
                    scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()


def averaged_while_annealed(lab: Lab) -> None:
    """One cycle of SGD down to a rate of nothing, and a moving average, with its statistics, which is validated."""
    model = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10))
    average = deepcopy(model).requires_grad_(False).eval()
    lab.recorder.watch({"average": average})
    optimizer = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9, nesterov=True, weight_decay=1e-3)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=220)

    def after(number: int) -> None:
        scheduler.step()
        share = 1 - min(0.98, (1 + number) / (10 + number))
        for mean, now in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
            mean.lerp_(now, share) if mean.is_floating_point() else mean.copy_(now)
        lab.validate(data.draw(data.unseen_pixels(), 128), lambda x, y: F.cross_entropy(average(x), y), number)

    replace(lab, steps=219).fit(
        model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y), optimizer, after=after
    )


class _Oscillator(nn.Module):
    """Where a swinging weight is, and what is not known of it: how stiff its spring is, and how damped it is."""

    def __init__(self) -> None:
        super().__init__()
        self.place = mlp(1, 32, 32, 1, activation=nn.Tanh)
        self.stiffness, self.damping = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(0.0))


def spring_found_from_its_swinging(lab: Lab) -> None:
    """An inverse problem: two numbers of an equation are learned at a rate of their own, from few noisy places."""
    model = _Oscillator()
    unknown: dict[str, Any] = {"params": [model.stiffness, model.damping], "lr": 5e-2}
    optimizer = torch.optim.Adam([{"params": list(model.place.parameters())}, unknown], lr=1e-2)
    seen = torch.linspace(0, 3, 24)[:, None]
    places = (-0.4 * seen).exp() * (math.sqrt(4 - 0.16) * seen).cos() + 0.02 * torch.randn_like(seen)

    def loss_of(time: torch.Tensor) -> torch.Tensor:
        time.requires_grad_()
        place = model.place(time)
        (speed,) = torch.autograd.grad(place.sum(), time, create_graph=True)
        (force,) = torch.autograd.grad(speed.sum(), time, create_graph=True)
        residual = force + model.damping * speed + model.stiffness * place
        return F.mse_loss(model.place(seen), places) + 0.02 * residual.square().mean()

    def batches(number: int) -> _Batch:
        return (3 * torch.rand(48, 1, generator=torch.Generator().manual_seed(number)),)

    replace(lab, steps=220).fit(model, batches, loss_of, optimizer)


class _Tasks(nn.Module):
    """Two regressions and a class from one trunk; how much each counts is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = mlp(8, 48, 48, activation=nn.SiLU)
        self.heads = nn.ModuleList([nn.Linear(48, size) for size in (1, 1, 3)])
        self.log_variances = nn.Parameter(torch.zeros(3))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        code = F.silu(self.trunk(x))
        return [head(code) for head in self.heads]


def tasks_weighed_by_their_uncertainty(lab: Lab) -> None:
    """Three losses of unlike size, weighed by learned variances: the sum falls below zero, and has a minimum."""
    model = _Tasks()

    def batches(number: int) -> _Batch:
        generator = torch.Generator().manual_seed(number)
        x = torch.randn(64, 8, generator=generator)
        noise = torch.randn(64, 2, generator=generator)
        exact, rough = x[:, 0] * x[:, 1] + 0.05 * noise[:, 0], x[:, 2].abs() + x[:, 3] + noise[:, 1]
        return x, exact, rough, x[:, 4:7].argmax(1)

    def loss_of(x: torch.Tensor, exact: torch.Tensor, rough: torch.Tensor, kind: torch.Tensor) -> torch.Tensor:
        first, second, scores = model(x)
        losses = torch.stack([
            F.mse_loss(first[:, 0], exact), F.mse_loss(second[:, 0], rough), F.cross_entropy(scores, kind),
        ])  # fmt: skip
        return ((-model.log_variances).exp() * losses + model.log_variances).sum()

    lab.fit(model, batches, loss_of, torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0.0))
