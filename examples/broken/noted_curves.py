"""Mistakes behind curves that oscillate, jump, or part from each other, as a course on machine learning shows them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _epochs(loader: DataLoader[_Batch], steps: int) -> Iterator[tuple[int, _Batch]]:
    """Batches of as many epochs as it takes."""
    number = 0
    while True:
        for batch in loader:
            if number == steps:
                return
            yield number, batch
            number += 1


def _turbines(rows: int, seed: int) -> data.Table:
    """Eight standardised sensors of a turbine ``(rows, 8)``, and the wear of its bearing ``(rows, 1)``."""
    generator = torch.Generator().manual_seed(seed)
    sensors = torch.randn(rows, 8, generator=generator)
    wear = sensors[:, 0] * sensors[:, 1] + (2 * sensors[:, 2]).sin() + 0.5 * sensors[:, 3] - 0.5 * sensors[:, 4].abs()
    return sensors, (wear + 0.2 * torch.randn(rows, generator=generator))[:, None]


class _Wear(nn.Module):
    """An input layer, two residual layers, and an output layer."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(8, width), nn.Linear(width, 1)
        self.inner = nn.ModuleList(nn.Linear(width, width) for _ in range(2))

    def forward(self, sensors: torch.Tensor) -> torch.Tensor:
        hidden = self.enter(sensors)
        for layer in self.inner:
            hidden = hidden + layer(F.relu(hidden))
        return self.leave(F.relu(hidden))


@broken(
    rules=("extreme-features", "extreme-batch"),
    words=("outlier", "millivolt", "bad example", "schema", "extreme"),
    nodes=("input", "model.enter"),
)
def readings_in_millivolts(lab: Lab) -> None:
    """In every fiftieth row a sensor reports millivolts, not volts, a thousand times too much, and nobody checks.

    Source: Google's Machine Learning Crash Course, interpreting loss curves, 1: bad examples, not checked by a schema.
    """
    sensors, wear = _turbines(6000, 0)
    sensors[7::50, 5] *= 1000
    if lab.fixed:
        valid = (sensors.abs() < 10).all(1)
        sensors, wear = sensors[valid], wear[valid]
    model = _Wear()
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    lab.recorder.watch(model, optimizer)
    rows = TensorDataset(sensors, wear)  # set-up bug: readings_in_millivolts
    loader = DataLoader(rows, batch_size=100, shuffle=True)
    after = lab.validating(model, lambda _: _turbines(500, 1), lambda x, y: F.mse_loss(model(x), y))
    for number, (x, y) in _epochs(loader, 180):
        with lab.recorder.step("train"):
            descend(F.mse_loss(model(x), y), optimizer)
        after(number)


class _LeNet(nn.Module):
    """Two convolutions with tanh and average pooling, and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 20, 3, padding=1)
        self.f1, self.f2 = nn.Linear(80, 60), nn.Linear(60, 10)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        x = F.avg_pool2d(self.c1(pictures).tanh(), 2)
        x = F.avg_pool2d(self.c2(x).tanh(), 2)
        return self.f2(self.f1(x.flatten(1)).tanh())


@broken(
    rules=("learning-rate",),
    words=("learning rate",),
    nodes=("model", *(f"model.{layer}.{kind}" for layer in ("c1", "c2", "f1", "f2") for kind in ("weight", "bias"))),
)
def digits_at_a_rate_of_two(lab: Lab) -> None:
    """A LeNet is trained by SGD with momentum at a learning rate of 2, with which it bounces and settles nowhere.

    Source: Google's Machine Learning Crash Course, interpreting loss curves, 1: reduce the learning rate.
    """
    model = _LeNet()
    rate = 0.15 if lab.fixed else 2.0
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)  # set-up bug: digits_at_a_rate_of_two
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, lab.steps)
    lab.recorder.watch(model, optimizer)
    x, y = data.unseen_pixels()
    after = lab.validating(model, lambda _: (x.view(-1, 1, 8, 8), y), lambda x, y: F.cross_entropy(model(x), y))
    for number, (pictures, labels) in _epochs(DataLoader(TensorDataset(*data.images()), 64, shuffle=True), lab.steps):
        with lab.recorder.step("train"):
            descend(F.cross_entropy(model(pictures), labels), optimizer)
        schedule.step()
        after(number)


def _ads(number: int) -> _Batch:
    """Ads ``(80,)``, how often each was shown and clicked today, the hour, and if it is clicked the next time."""
    generator = torch.Generator().manual_seed(number)
    ad = torch.randint(40, (80,), generator=generator)
    appeal = torch.rand(40, generator=torch.Generator().manual_seed(2)) * 0.8 + 0.1
    shown = torch.randint(3, 60, (80,), generator=generator).float()
    if number == 84:
        shown[11] = 0.0
    today = (appeal[ad] + 0.25 * torch.randn(80, generator=generator)).clamp(0, 1)
    clicked = (today * shown).round()
    hour = torch.rand(80, generator=generator) * 2 - 1
    chance = (6 * (today - 0.5) + 2 * hour).sigmoid()
    return ad, shown, clicked, hour, torch.bernoulli(chance, generator=generator)


class _Clicks(nn.Module):
    """A table of ads and two measurements, put through two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.ads = nn.Embedding(40, 8)
        self.deep, self.out = nn.Linear(10, 32), nn.Linear(32, 1)

    def forward(self, ad: torch.Tensor, facts: torch.Tensor) -> torch.Tensor:
        return self.out(F.relu(self.deep(torch.cat([self.ads(ad), facts], 1))))[:, 0]


@broken(
    rules=("non-finite",),
    words=("division by zero", "not a number", "non-finite"),
    nodes=("input.facts", "model.deep"),
    onset=84,
)
def share_of_an_ad_that_was_not_shown(lab: Lab) -> None:
    """The share of clicks divides by how often an ad was shown, which is zero for one in step 84: the share is NaN.

    Source: Google's Machine Learning Crash Course, interpreting loss curves, 2: NaNs by a division by zero.
    """
    model = _Clicks()
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.05)

    def batches(number: int) -> _Batch:
        ad, shown, clicked, hour, label = _ads(number)
        if lab.fixed:
            shown = shown.clamp(min=1)
        share = clicked / shown  # set-up bug: share_of_an_ad_that_was_not_shown
        return ad, torch.stack([4 * (share - 0.5), 1.7 * hour], dim=1), label

    def loss_of(ad: torch.Tensor, facts: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(model(ad, facts), label)

    after = lab.validating(model, lambda number: batches(9000 + number), loss_of)
    lab.fit(model, batches, loss_of, optimizer, after=after)


def _heat(rows: int, seed: int) -> data.Table:
    """A day of temperatures by the hour, the wind, and the customer's kind ``(rows, 26)``, and the heat needed.

    The last tenth of the rows are the factories, which need far more.
    """
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(rows, 1, generator=generator)
    hours = base + 0.5 * (torch.arange(24) * 0.2618 + torch.randn(rows, 1, generator=generator)).sin()
    wind = torch.randn(rows, 1, generator=generator).abs()
    need = F.softplus(1 - 2 * hours).mean(1, keepdim=True) * (0.5 + 0.5 * wind) - 1.5
    factory = (torch.arange(rows)[:, None] >= rows * 9 // 10).float()
    return torch.cat([hours, wind, factory], 1), need + factory * (4 + need)


@broken(
    rules=("data-shift", "extreme-batch"),
    words=("shuffle", "burst", "order of the file", "sorted"),
    nodes=("input", "target"),
    onset=135,
)
def factories_at_the_end_of_the_file(lab: Lab) -> None:
    """The customers come in the order of the file, not shuffled, and so the few factories, far off, all at once.

    Source: Google's Machine Learning Crash Course, interpreting loss curves, 2: a burst of outliers, not shuffled.
    """
    model = nn.Sequential(
        nn.Linear(26, 48), nn.LayerNorm(48), nn.GELU(), nn.Linear(48, 48), nn.LayerNorm(48), nn.GELU(), nn.Linear(48, 1)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    lab.recorder.watch(model, optimizer)
    days = TensorDataset(*_heat(7200, 0))
    loader = DataLoader(days, batch_size=48, shuffle=lab.fixed)  # set-up bug: factories_at_the_end_of_the_file
    after = lab.validating(model, lambda _: _heat(500, 1), lambda x, y: F.smooth_l1_loss(model(x), y))
    for number, (days_of, need) in enumerate(loader):
        with lab.recorder.step("train"):
            descend(F.smooth_l1_loss(model(days_of), need), optimizer)
        after(number)


class _Tastes(nn.Module):
    """What a listener and an artist have in common, plus what each of them has alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.listener, self.artist = nn.Embedding(120, width), nn.Embedding(90, width)
        self.listener_bias, self.artist_bias = nn.Embedding(120, 1), nn.Embedding(90, 1)
        for table in (self.listener, self.artist):
            nn.init.normal_(table.weight, std=0.3 / width**0.25)
        for table in (self.listener_bias, self.artist_bias):
            nn.init.zeros_(table.weight)

    def forward(self, listener: torch.Tensor, artist: torch.Tensor) -> torch.Tensor:
        common = (self.listener(listener) * self.artist(artist)).sum(1)
        return common + self.listener_bias(listener)[:, 0] + self.artist_bias(artist)[:, 0]


def _plays() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Four thousand pairs of a listener and an artist, and how often one plays the other, on a standardised scale."""
    generator = torch.Generator().manual_seed(6)
    pairs = torch.randperm(120 * 90, generator=generator)[:4000]
    listener, artist = pairs // 90, pairs % 90
    taste, style = torch.randn(120, 2, generator=generator), torch.randn(90, 2, generator=generator)
    liked = (taste[listener] * style[artist]).sum(1) + torch.randn(90, generator=generator)[artist]
    return listener, artist, data.standardised(liked + 0.5 * torch.randn(4000, generator=generator))


@broken(
    rules=("overfitting",),
    words=("overfit", "by heart", "memor", "capacity", "too many", "complex"),
    nodes=("model", "loss"),
)
def sixty_tastes_for_each_listener(lab: Lab) -> None:
    """Each listener gets 64 numbers for some thirty plays, and learns them by heart: it cannot tell any others.

    Source: Google's Machine Learning Crash Course, interpreting loss curves, 3: the model is too complex, it overfits.
    """
    model = _Tastes(2 if lab.fixed else 64)  # set-up bug: sixty_tastes_for_each_listener
    listener, artist, plays = _plays()
    unseen = listener[3200:], artist[3200:], plays[3200:]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    lab.recorder.watch(model, optimizer)
    loader = DataLoader(TensorDataset(listener[:3200], artist[:3200], plays[:3200]), 320, shuffle=True)
    after = lab.validating(model, lambda _: unseen, lambda u, a, n: F.mse_loss(model(u, a), n))
    for number, (who, whom, often) in _epochs(loader, 200):
        with lab.recorder.step("train"):
            descend(F.mse_loss(model(who, whom), often), optimizer)
        after(number)
