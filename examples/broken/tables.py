"""Mistakes with tables, counts, ratings and equations: what the columns mean, and what the loss asks for."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab
from stepscope.examples.broken.nets import mlp

_Batch = tuple[torch.Tensor, ...]


class _Shops(nn.Module):
    """Foresees sales from the number of a shop and four measurements."""

    def __init__(self, *, one_hot: bool) -> None:
        super().__init__()
        self.one_hot = one_hot
        self.body = mlp(54 if one_hot else 5, 32, 1)

    def forward(self, shop: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        column = F.one_hot(shop, 50).float() if self.one_hot else shop[:, None].float()
        return self.body(torch.cat([column, x], dim=1))  # bug: shop_numbers_as_measurements


def _sales(number: int) -> _Batch:
    """Shops ``(64,)``, measurements ``(64, 4)``, and sales ``(64, 1)``; each shop has its own level."""
    level = 2 * torch.randn(50, generator=torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(number)
    shop, x = torch.randint(50, (64,), generator=generator), torch.randn(64, 4, generator=generator)
    return shop, x, (level[shop] + x[:, 0] * x[:, 1])[:, None]


@broken(
    rules=("categories-as-numbers",), words=("categor", "whole numbers", "one-hot", "embedding"),
    nodes=("input.shop", "model.body", "model.body.0"),
)  # fmt: skip
def shop_numbers_as_measurements(lab: Lab) -> None:
    """The number of a shop, 0 to 49, goes in as if it were a measurement, not as a category.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong preprocessing; Stack Overflow, integers for categories.
    """
    model = _Shops(one_hot=lab.fixed)
    lab.fit(model, _sales, lambda shop, x, y: F.mse_loss(model(shop, x), y), lr=1e-2)


class _Tastes(nn.Module):
    """Users and films get codes, whose product says how much the one likes the other."""

    def __init__(self, users: int = 60, films: int = 40, width: int = 8) -> None:
        super().__init__()
        self.user, self.film = nn.Embedding(users, width), nn.Embedding(films, width)
        self.bias = nn.Parameter(torch.zeros(()))
        for table in (self.user, self.film):
            nn.init.normal_(table.weight, std=0.3)

    def forward(self, user: torch.Tensor, film: torch.Tensor) -> torch.Tensor:
        return (self.user(user) * self.film(film)).sum(1) + self.bias


def _likes(number: int) -> _Batch:
    """Users and films ``(256,)``, and whether the one likes the other: one in four does."""
    user, film = (torch.randint(size, (256,), generator=torch.Generator().manual_seed(2 * number + part))
                  for part, size in enumerate((60, 40)))  # fmt: skip
    return user, film, ((user * 7 % 4) == (film * 3 % 4)).float()


@broken(
    rules=("imbalanced-targets", "constant-data"),
    words=("one class", "same target", "targets are all", "target is always", "negative sampl"),
    nodes=("target", "loss"),
)  # fmt: skip
def only_what_was_liked(lab: Lab) -> None:
    """A recommender is shown only the films that users liked, and none that they did not: all targets are 1.

    Source: maciejkula/spotlight issue 36 and LibRecommender issue 16, negative samples for implicit feedback.
    """
    model = _Tastes()

    def loss_of(user: torch.Tensor, film: torch.Tensor, liked: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(model(user, film), liked)

    def batches(number: int) -> _Batch:
        user, film, liked = _likes(number)
        kept = torch.ones_like(liked, dtype=torch.bool) if lab.fixed else liked > 0
        return user[kept], film[kept], liked[kept]  # set-up bug: only_what_was_liked

    lab.fit(
        model, batches, loss_of, lr=2e-2,
        after=lambda number: lab.validate(lambda n: _likes(n + 10_000), loss_of, number),
    )  # fmt: skip


def _rare_words(number: int) -> _Batch:
    """Eight words of 1,000 in each of 64 texts, most of them rare, and the mean of their hidden values."""
    value = torch.randn(1000, generator=torch.Generator().manual_seed(3))
    words = torch.randint(1000, (64, 8), generator=torch.Generator().manual_seed(number % 30))
    return words, 3 * value[words].mean(1)


@broken(rules=("shrinking-weights",), words=("weight decay", "weight_decay"), nodes=("model.0.weight",))
def unseen_rows_decayed(lab: Lab) -> None:
    """Adam's weight_decay pulls at all rows of an embedding in every step, though a batch has few of them.

    Source: pytorch/pytorch issue 18404 and tensorflow/tensorflow pull request 17438, dense decay of sparse rows.
    """
    model = nn.Sequential(nn.EmbeddingBag(1000, 16), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))
    decay = 0.0 if lab.fixed else 1e-2
    optimizer = torch.optim.Adam(model.parameters(), 1e-2, weight_decay=decay)  # set-up bug: unseen_rows_decayed
    lab.fit(model, _rare_words, lambda words, y: F.mse_loss(model(words)[:, 0], y), optimizer)


class _House(nn.Module):
    """One trunk, and two heads: what a house costs, and which of five styles it is of."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = mlp(12, 48, 24, activation=nn.SiLU)
        self.price, self.style = nn.Linear(24, 1), nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        code = F.silu(self.trunk(x))
        return self.price(code)[:, 0], self.style(code)


def _houses(number: int) -> _Batch:
    """Measurements ``(64, 12)``, prices around 300 (in thousands), and styles ``(64,)``."""
    direction = torch.randn(12, 5, generator=torch.Generator().manual_seed(1))
    x = torch.randn(64, 12, generator=torch.Generator().manual_seed(number))
    return x, 300 + 80 * x[:, 0] * x[:, 1].tanh() + 60 * x[:, 2], (x @ direction).argmax(1)


@broken(
    rules=("loss-balance", "target-scale"), words=("outweigh", "dominat", "larger than the other"),
    nodes=("target", "loss", "mse_loss"),
)  # fmt: skip
def prices_drown_the_styles(lab: Lab) -> None:
    """Of two tasks one has targets around 300, whose squared error is a thousand times the other's cross-entropy.

    Source: Kendall et al. (2018), losses of several tasks; PyTorch forum, losses of different magnitudes.
    """
    model = _House()

    def loss_of(x: torch.Tensor, price: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        guess, scores = model(x)
        if lab.fixed:
            price = (price - 300) / 100
        return F.mse_loss(guess, price) + F.cross_entropy(scores, style)  # bug: prices_drown_the_styles

    lab.fit(model, _houses, loss_of, torch.optim.AdamW(model.parameters(), 1e-2))


class _Weighed(nn.Module):
    """Three tasks on digits, each with a weight that is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = mlp(64, 64, 32, activation=nn.GELU)
        self.heads = nn.ModuleList([nn.Linear(32, size) for size in (10, 2, 5)])
        self.weights = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        code = F.gelu(self.trunk(x))
        return [head(code) for head in self.heads]


@broken(
    rules=("unbounded-loss",), words=("without end", "unbounded", "below zero", "no minimum"),
    nodes=("loss", "model.weights"),
)  # fmt: skip
def learned_weights_of_the_losses(lab: Lab) -> None:
    """The weights of three losses are learned by the same descent, which makes them zero and then negative.

    Source: questions on Kendall et al. (2018) and PyTorch forum, learnable loss weights go to zero.
    """
    model = _Weighed()

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        tasks = zip(model(x), (y, y % 2, y // 2), strict=True)
        losses = torch.stack([F.cross_entropy(scores, answer) for scores, answer in tasks])
        if lab.fixed:
            return ((-model.weights).exp() * losses + model.weights).sum()
        return (model.weights * losses).sum()  # bug: learned_weights_of_the_losses

    rest = [parameter for parameter in model.parameters() if parameter is not model.weights]
    groups: list[dict[str, Any]] = [{"params": rest}, {"params": [model.weights], "lr": 2e-2}]
    optimizer = torch.optim.Adam(groups, lr=3e-3)
    lab.fit(model, data.draw(data.pixels()), loss_of, optimizer)


@broken(rules=("gradient-cut",), words=("create_graph", "derivative", "detach"), nodes=("loss", "model"))
def derivative_without_a_graph(lab: Lab) -> None:
    """The slope in an equation is taken with retain_graph instead of create_graph, and no gradient flows through it.

    Source: PyTorch forum, physics-informed nets and autograd.grad; lululxvi/deepxde issues 321 and 356.
    """
    model = mlp(1, 32, 32, 1, activation=nn.Tanh)

    def loss_of(time: torch.Tensor) -> torch.Tensor:
        time.requires_grad_()
        height = model(time)
        (slope,) = torch.autograd.grad(
            height.sum(), time, retain_graph=True, create_graph=lab.fixed
        )  # bug: derivative_without_a_graph
        residual = slope - height - 3 * (3 * time).cos() + (3 * time).sin()
        return residual.square().mean() + 4 * model(torch.zeros(1, 1)).square().mean()

    def batches(number: int) -> _Batch:
        return (1.2 * torch.rand(64, 1, generator=torch.Generator().manual_seed(number)),)

    def error(time: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(time), (3 * time).sin())

    lab.fit(model, batches, loss_of, lr=1e-2, after=lambda number: lab.validate(batches, error, number))


class _Spring(nn.Module):
    """Where a swinging weight is at a time, and how much it is damped, which is to be found out."""

    def __init__(self) -> None:
        super().__init__()
        self.place = mlp(1, 32, 32, 1, activation=nn.Tanh)
        self.damping = nn.Parameter(torch.tensor(0.1))


@broken(rules=("no-gradient", "gradient-cut"), words=("item()",), nodes=("model.damping",))
def damping_read_by_item(lab: Lab) -> None:
    """The unknown coefficient of an equation is read with ``.item()``, so that it is a mere number and never learned.

    Source: PyTorch forum, parameters used through item() or data get no gradient; inverse problems in deepxde.
    """
    model, true = _Spring(), 0.8

    def loss_of(time: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        time.requires_grad_()
        place = model.place(time)
        (speed,) = torch.autograd.grad(place.sum(), time, create_graph=True)
        (force,) = torch.autograd.grad(speed.sum(), time, create_graph=True)
        damping = model.damping if lab.fixed else model.damping.item()  # bug: damping_read_by_item
        return F.mse_loss(place, seen) + 0.05 * (force + damping * speed + 4 * place).square().mean()

    def batches(number: int) -> _Batch:
        time = 3 * torch.rand(64, 1, generator=torch.Generator().manual_seed(number))
        return time, (-true / 2 * time).exp() * (math.sqrt(4 - true**2 / 4) * time).cos()

    lab.fit(model, batches, loss_of, lr=1e-2)


_SECOND_FILE = 110
"""The step from which batches come from the second file of a table."""


@broken(rules=("data-shift",), words=("targets change", "zeros", "zero in"), nodes=("target",), onset=_SECOND_FILE)
def missing_targets_filled_with_zeros(lab: Lab) -> None:
    """In the second file half of the targets are missing, and were filled with zeros like all other holes.

    Source: Stack Overflow, fillna(0) on a whole table; taxonomy of Humbatova et al. (ICSE 2020), wrong labels.
    """
    model = nn.Sequential(nn.Linear(8, 64), nn.LayerNorm(64), nn.SiLU(), nn.Linear(64, 1))

    def batches(number: int) -> _Batch:
        generator = torch.Generator().manual_seed(number)
        x = torch.randn(128, 8, generator=generator)
        y = 6 + x[:, 0] * x[:, 1] + 0.5 * x[:, 2:].sum(1)
        known = torch.rand(128, generator=generator) < (0.5 if number >= _SECOND_FILE else 1.0)
        if lab.fixed:
            return x[known], y[known]
        return x, y.where(known, torch.zeros(()))  # set-up bug: missing_targets_filled_with_zeros

    replace(lab, steps=220).fit(model, batches, lambda x, y: F.l1_loss(model(x)[:, 0], y), lr=1e-2)


@broken(
    rules=("data-shift",), words=("inputs change", "columns", "features change"),
    nodes=("input",), onset=_SECOND_FILE + 3,
)  # fmt: skip
def columns_of_the_second_file(lab: Lab) -> None:
    """The second file of a table has the same columns as the first one, in another order, and is read by position.

    Source: Stack Overflow, files joined without their headers; Karpathy's recipe (2019), become one with the data.
    """
    model = nn.Sequential(nn.Linear(12, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, 1))
    alphabetical = torch.randperm(12, generator=torch.Generator().manual_seed(2))

    def homes(number: int) -> _Batch:
        x, price, _ = _houses(number)
        return torch.cat([x[:, :6], x[:, 6:].sign()], dim=1), (price - 300) / 100

    def batches(number: int) -> _Batch:
        rows, price = homes(number)
        if number >= _SECOND_FILE and not lab.fixed:
            rows = rows[:, alphabetical]  # set-up bug: columns_of_the_second_file
        return rows, price

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.huber_loss(model(x)[:, 0], y)

    replace(lab, steps=220).fit(
        model, batches, loss_of, torch.optim.SGD(model.parameters(), 0.05, momentum=0.8),
        after=lambda number: lab.validate(lambda n: homes(n + 10_000), loss_of, number),
    )  # fmt: skip


@broken(rules=("activation-before-loss",), words=("exponent", "log_input"), nodes=("loss", "prediction"))
def rates_exponentiated_twice(lab: Lab) -> None:
    """The net ends with an exponential, and poisson_nll_loss, whose log_input is True by default, takes another one.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong loss; PyTorch's documentation of PoissonNLLLoss.
    """
    model = mlp(6, 48, 48, 1, activation=nn.Tanh)

    def loss_of(x: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        rate = model(x)[:, 0].exp()
        return F.poisson_nll_loss(rate, count, log_input=not lab.fixed)  # bug: rates_exponentiated_twice

    def batches(number: int) -> _Batch:
        generator = torch.Generator().manual_seed(number)
        x = torch.randn(128, 6, generator=generator)
        return x, torch.poisson((0.7 * x[:, 0] - 0.7 * x[:, 1] - 1).exp().clamp(max=5), generator=generator)

    lab.fit(model, batches, loss_of, lr=5e-3)


@broken(rules=("loss-sign",), words=("wrong sign", "the sign", "negative", "below zero", "opposite"), nodes=("loss",))
def correlation_minimised(lab: Lab) -> None:
    """The loss is the correlation itself instead of one minus it, so that the net learns the opposite of its target.

    Source: Stack Overflow, a custom correlation loss; taxonomy of Humbatova et al. (ICSE 2020), wrong loss.
    """
    model = mlp(10, 32, 1, activation=nn.ELU)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        guess, truth = model(x)[:, 0], y[:, 0]
        correlation = F.cosine_similarity(guess - guess.mean(), truth - truth.mean(), dim=0)
        return 1 - correlation if lab.fixed else correlation  # bug: correlation_minimised

    lab.fit(model, data.draw(data.diabetes(), 96), loss_of)


def _hours(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Times in seconds since 1970 ``(64, 1)``, within a minute, and what happens then."""
    second = 60 * torch.rand(64, 1, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
    return 1.7e9 + second, (second * (2 * math.pi / 60)).sin().float()


@broken(rules=("constant-data", "precision-loss"), words=("float32", "precision", "resolution"), nodes=("input",))
def seconds_since_1970_in_float32(lab: Lab) -> None:
    """Seconds since 1970 are cast to float32, which knows them to 128 seconds only, before the minute is taken out.

    Source: Stack Overflow and PyTorch forum, timestamps lose their digits in float32; Islam et al. (FSE 2019).
    """
    model = mlp(1, 48, 48, 1, activation=nn.Tanh)

    def batches(number: int) -> _Batch:
        time, y = _hours(number)
        if not lab.fixed:
            time = time.float()  # set-up bug: seconds_since_1970_in_float32
        return ((time - 1.7e9) / 30 - 1).float(), y

    lab.fit(model, batches, lambda x, y: F.mse_loss(model(x), y), lr=1e-2)
