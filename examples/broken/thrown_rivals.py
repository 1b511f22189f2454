"""Mistakes in nets that compete, that recommend, and that make images, drawn by dice from published collections."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab
from stepscope.examples.broken.nets import mlp

_Batch = tuple[torch.Tensor, ...]


def _leaky() -> nn.Module:
    return nn.LeakyReLU(0.2)


class _Rivals(nn.Module):
    """A generator and a discriminator; what either is told besides comes after its own input."""

    def __init__(self, generator: nn.Module, discriminator: nn.Module, noise: int) -> None:
        super().__init__()
        self.generator, self.discriminator, self.noise = generator, discriminator, noise

    def fake(self, told: torch.Tensor) -> torch.Tensor:
        return self.generator(torch.cat([torch.randn(len(told), self.noise), told], 1))

    def judge(self, sample: torch.Tensor, told: torch.Tensor, *, real: bool) -> torch.Tensor:
        score = self.discriminator(torch.cat([sample, told], 1))
        return F.binary_cross_entropy_with_logits(score, torch.full_like(score, float(real)))


class _Contest:
    """Trains the two in turn, and watches how far apart what is made and what is real are."""

    def __init__(self, lab: Lab, model: _Rivals, rate: float) -> None:
        self.lab, self.model = lab, model
        self.makes = torch.optim.Adam(model.generator.parameters(), lr=rate, betas=(0.5, 0.99))
        self.tells = torch.optim.Adam(model.discriminator.parameters(), lr=rate, betas=(0.5, 0.99))
        lab.recorder.watch(model, [self.makes, self.tells])

    def run(self, batches: Callable[[int], _Batch], apart: Callable[[], torch.Tensor], steps: int = 200) -> None:
        for number in range(steps):
            real, told = batches(number)
            with self.lab.recorder.step("train"):
                fake = self.model.fake(told)
                self.tells.zero_grad()
                truth = self.model.judge(real, told, real=True)
                (truth + self.model.judge(fake.detach(), told, real=False)).backward()
                self.tells.step()
                self.makes.zero_grad()
                self.model.judge(fake, told, real=True).backward()
                self.makes.step()
            if number % 40 == 39:
                with torch.no_grad(), self.lab.recorder.step("validation") as step:
                    step.record("distance", apart())


def _sliced(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The mean distance of two clouds along fifty directions."""
    ways = F.normalize(torch.randn(one.shape[1], 50, generator=torch.Generator().manual_seed(1)), dim=0)
    return ((one @ ways).sort(0)[0] - (other @ ways).sort(0)[0]).abs().mean()


def _arc(number: int, rows: int = 128) -> _Batch:
    """Points on half a circle aside of the origin ``(rows, 2)``, and nothing else that is told ``(rows, 0)``."""
    generator = torch.Generator().manual_seed(number)
    angle = 3.1416 * torch.rand(rows, generator=generator)
    points = torch.stack([1.2 + angle.cos(), angle.sin() - 1.5], 1)
    return points + 0.05 * torch.randn(rows, 2, generator=generator), torch.zeros(rows, 0)


@broken(
    rules=("learning-rate",),
    words=("learning rate", "rate is too low", "too small a rate"),
    nodes=("model.generator", "model.discriminator", "model.generator.0.weight", "model.discriminator.0.weight"),
)
def forger_and_judge_in_tiny_steps(lab: Lab) -> None:
    """Both nets of the contest have a learning rate of a millionth, with which neither gets anywhere.

    Source: UMLAUT (CHI 2021), learning rate too low.
    """
    model = _Rivals(mlp(4, 48, 48, 2, activation=_leaky), mlp(2, 48, 48, 1, activation=_leaky), 4)
    rate = 2e-3 if lab.fixed else 1e-6  # set-up bug: forger_and_judge_in_tiny_steps
    unseen, nothing = _arc(90_000, 1000)
    _Contest(lab, model, rate).run(_arc, lambda: _sliced(model.fake(nothing), unseen))


_CORNERS = torch.tensor([[1.2, 1.2], [-1.2, 1.2], [-1.2, -1.2], [1.2, -1.2]])


def _corners(rows: int, seed: int) -> _Batch:
    """Points around four corners ``(rows, 2)``, and which corner it is ``(rows,)``."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.randint(4, (rows,), generator=generator)
    return _CORNERS[corner] + 0.15 * torch.randn(rows, 2, generator=generator), corner


@broken(
    rules=("unrelated-targets",),
    words=("shuffl", "mismatch", "other samples", "unrelated"),
    nodes=("input", "target", "model.discriminator"),
)
def corners_under_wrong_names(lab: Lab) -> None:
    """The points are shuffled before the training, but not their labels, so that a label says nothing of its point.

    Source: DeepDiagnosis (ICSE 2022), accuracy not increasing, labels wrongly prepared.
    """
    points, corner = _corners(6400, 1)
    order = torch.randperm(len(points))
    points = points[order]  # set-up bug: corners_under_wrong_names
    if lab.fixed:
        corner = corner[order]
    named = F.one_hot(corner, 4).float()
    asked = F.one_hot(torch.arange(800) % 4, 4).float()

    def batches(number: int) -> _Batch:
        place = 128 * (number % 50)
        return points[place : place + 128], named[place : place + 128]

    def apart() -> torch.Tensor:
        return (model.fake(asked) - asked @ _CORNERS).norm(dim=1).mean()

    model = _Rivals(mlp(8, 48, 48, 2, activation=_leaky), mlp(6, 48, 48, 1, activation=_leaky), 4)
    _Contest(lab, model, 2e-3).run(batches, apart)


def _sines(number: int, rows: int = 128) -> _Batch:
    """Pieces of sine waves ``(rows, 12)``, begun anywhere, and nothing else that is told."""
    begin = 6.2832 * torch.rand(rows, 1, generator=torch.Generator().manual_seed(number))
    return 0.9 * (begin + torch.arange(12.0) / 2).sin(), torch.zeros(rows, 0)


@broken(
    rules=("unreachable-targets",),
    words=("sigmoid", "below zero", "unreach"),
    nodes=("model.generator.5", "model.generator.4", "model.generator"),
)
def waves_above_the_water(lab: Lab) -> None:
    """The generator of sine waves ends with a sigmoid, which never gives the negative half of a wave.

    Source: DeepLocalize's benchmark (ICSE 2021), Stack Overflow 33969059, a sine and an activation unfit for it.
    """
    last = nn.Tanh() if lab.fixed else nn.Sigmoid()  # set-up bug: waves_above_the_water
    generator = nn.Sequential(nn.Linear(4, 64), _leaky(), nn.Linear(64, 64), _leaky(), nn.Linear(64, 12), last)
    model = _Rivals(generator, mlp(12, 64, 64, 1, activation=_leaky), 4)
    unseen, nothing = _sines(90_000, 1000)
    _Contest(lab, model, 2e-3).run(_sines, lambda: _sliced(model.fake(nothing), unseen))


class _Tower(nn.Module):
    """Embedded users and films go through many narrow layers to a rating."""

    def __init__(self, *, normed: bool, width: int = 48) -> None:
        super().__init__()
        self.user, self.film = nn.Embedding(40, 16), nn.Embedding(30, 16)
        layers: list[nn.Module] = []
        for depth in range(8):
            layers.append(nn.Linear(32 if depth == 0 else width, width))
            if normed:
                layers.append(nn.BatchNorm1d(width))  # set-up bug: tower_of_eight_layers
            layers.append(nn.ReLU())
        self.layers = nn.Sequential(*layers)
        self.rating = nn.Linear(width, 1)

    def forward(self, user: torch.Tensor, film: torch.Tensor) -> torch.Tensor:
        return self.rating(self.layers(torch.cat([self.user(user), self.film(film)], 1))).squeeze(1)


def _ratings() -> tuple[_Batch, _Batch]:
    """All ratings that forty users gave thirty films, standardised: four fifths to learn from, and the others."""
    generator = torch.Generator().manual_seed(2)
    likes = torch.randn(5, 1, generator=generator) + torch.randn(4, generator=generator)
    likes = likes + 0.5 * torch.randn(5, 4, generator=generator)
    pairs = torch.randperm(1200, generator=generator)
    user, film = pairs // 30, pairs % 30
    rating = likes[user % 5, film % 4] + 0.3 * torch.randn(1200, generator=generator)
    rating = (rating - rating.mean()) / rating.std()
    return (user[:960], film[:960], rating[:960]), (user[960:], film[960:], rating[960:])


@broken(
    rules=("vanishing-gradient", "fading-signal"),
    words=("batch norm", "batchnorm", "normalisation layer"),
    nodes=("model.layers", "model.layers.0", "model.layers.0.weight", "model.user.weight", "model.film.weight"),
)
def tower_of_eight_layers(lab: Lab) -> None:
    """A tower of eight layers over the embeddings has no batch normalisation, and nothing comes through it either way.

    Source: AutoTrainer (ICSE 2021), vanishing gradient, missing batch normalisation in a deep net.
    """
    model = _Tower(normed=lab.fixed)
    train, unseen = _ratings()

    def loss_of(user: torch.Tensor, film: torch.Tensor, rating: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(user, film), rating)

    def batches(number: int) -> _Batch:
        rows = torch.randint(960, (128,), generator=torch.Generator().manual_seed(number))
        return train[0][rows], train[1][rows], train[2][rows]

    optimizer = torch.optim.SGD(model.parameters(), lr=0.04, momentum=0.9)
    after = lab.validating(model, lambda _: unseen, loss_of)
    replace(lab, steps=210).fit(model, batches, loss_of, optimizer, after=after)


class _Vae(nn.Module):
    """Sixty-four pixels, eight variables, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 16))
        self.decoder = nn.Sequential(nn.Linear(8, 96), nn.ReLU(), nn.Linear(96, 64))

    def forward(self, ink: torch.Tensor) -> torch.Tensor:
        """The negative bound on the likelihood, for each image."""
        mean, spread = self.encoder(ink).chunk(2, dim=1)
        rebuilt = self.decoder(mean + torch.randn_like(mean) * (0.5 * spread).exp())
        entropy = F.binary_cross_entropy_with_logits(rebuilt, ink, reduction="none").sum(1)
        return (entropy - 0.5 * (1 + spread - mean**2 - spread.exp()).sum(1)).mean()


class _Ranks(nn.Module):
    """Copies of a model, one for each part of the data, which are to be kept alike."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.ranks = nn.ModuleList([model, copy.deepcopy(model)])

    def average_gradients(self) -> None:
        for alike in zip(*(rank.parameters() for rank in self.ranks), strict=True):
            mean = torch.stack([parameter.grad for parameter in alike if parameter.grad is not None]).mean(0)
            for parameter in alike:
                parameter.grad = mean.clone()


@broken(
    words=("synchron", "in sync", "out of sync", "replica", "drift apart", "diverge from each other"),
    nodes=("model.ranks.0", "model.ranks.1"),
)
def copies_that_go_their_own_ways(lab: Lab) -> None:
    """Two copies of the model read the files of a scanner each, and never share their gradients; the first is kept.

    Source: TrainCheck (OSDI 2025), x-jxmnop-ddp-out-of-sync, replicas are not synchronised.
    """
    (x, y), (unseen, _) = data.pixels(), data.unseen_pixels()
    ink, unseen = ((table - x.min()) / (x.max() - x.min()) for table in (x, unseen))
    files = [data.draw((ink[::2], y[::2]), 48), data.draw((1 - ink[1::2], y[1::2]), 48)]
    both = torch.cat([unseen[::2], 1 - unseen[1::2]])
    model = _Ranks(_Vae())
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            losses = [rank(batches(number)[0]) for rank, batches in zip(model.ranks, files, strict=True)]
            torch.stack(losses).sum().backward()
            if lab.fixed:
                model.average_gradients()
            optimizer.step()  # bug: copies_that_go_their_own_ways
        lab.validate(lambda _: (both,), lambda ink: model.ranks[0](ink), number)
