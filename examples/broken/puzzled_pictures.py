"""Mistakes in nets for pictures that people were puzzled about, and whose cause they were told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _photos(number: int) -> _Batch:
    """Photographs ``(32, 1, 24, 24)`` of one thing, whether it is full or hollow, and its box in pixels ``(32, 4)``."""
    generator = torch.Generator().manual_seed(number)
    size = torch.randint(6, 13, (32, 2), generator=generator)
    first = (torch.rand(32, 2, generator=generator) * (25 - size)).long()
    last = first + size
    hollow = torch.randint(2, (32,), generator=generator)
    places = torch.arange(24)

    def inside(edge: int) -> torch.Tensor:
        across = (places >= first[:, :1] + edge) & (places < last[:, :1] - edge)
        down = (places >= first[:, 1:] + edge) & (places < last[:, 1:] - edge)
        return (down[:, :, None] & across[:, None, :]).float()

    thing = inside(0) - inside(2) * hollow[:, None, None]
    photo = 2 * thing - 0.25 + 0.3 * torch.randn(32, 24, 24, generator=generator)
    return photo[:, None], hollow, torch.cat([first, last], dim=1).float()


class _Detector(nn.Module):
    """Convolutions down to three by three places, and a head each for the class and the box."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, 24, 3, 2, 1), nn.ReLU(), nn.Conv2d(24, 32, 3, 2, 1),
            nn.ReLU(), nn.Flatten(), nn.Linear(288, 64), nn.ReLU(),
        )  # fmt: skip
        self.conf, self.loc = nn.Linear(64, 2), nn.Linear(64, 4)

    def forward(self, photo: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen = self.features(photo)
        return self.conf(seen), self.loc(seen).sigmoid()


@broken(
    rules=("unreachable-targets", "target-scale"),
    words=("pixels", "between 0 and 1", "out of reach", "cannot reach", "outside the range"),
    nodes=("target", "model.loc", "model", "prediction"),
)
def boxes_left_in_pixels(lab: Lab) -> None:
    """The data set gives boxes in pixels, while the detector answers in shares of the picture: all boxes are alike.

    Source: amdegroot/ssd.pytorch 213, outputs are always the same, own data loader with wrong values of boxes.
    """
    model = _Detector()

    def batches(number: int) -> _Batch:
        photo, hollow, box = _photos(number)
        return photo, hollow, box / 24 if lab.fixed else box  # set-up bug: boxes_left_in_pixels

    def loss_of(photo: torch.Tensor, hollow: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
        scores, found = model(photo)
        return F.cross_entropy(scores, hollow) + 5 * F.l1_loss(found, box)

    after = lab.validating(model, lambda number: batches(9000 + number), loss_of)
    lab.fit(model, batches, loss_of, lr=3e-3, after=after)


def _teacher() -> nn.Module:
    """A net that has learned from carefully labelled digits."""
    model = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Dropout(0.2), nn.Linear(96, 10))
    learning, batches = torch.optim.Adam(model.parameters(), lr=4e-3), data.draw(data.pixels(), 128)
    for number in range(200):
        x, y = batches(20000 + number)
        descend(F.cross_entropy(model(x), y), learning)
    return model.eval().requires_grad_(False)


class _DistillationPolicy:
    """Weighs what the labels say against what the teacher says at a higher temperature."""

    def __init__(self, teacher: nn.Module, *, temperature: float, alpha: float, squared: bool) -> None:
        self.teacher, self.temperature, self.alpha, self.squared = teacher, temperature, alpha, squared

    def loss(self, x: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        soft = F.log_softmax(scores / self.temperature, dim=1)
        wanted = F.softmax(self.teacher(x) / self.temperature, dim=1)
        distillation = F.kl_div(soft, wanted, reduction="batchmean")
        if self.squared:
            distillation = distillation * self.temperature**2
        return self.alpha * F.cross_entropy(scores, labels) + (1 - self.alpha) * distillation  # bug: no_squared_heat


@broken(rules=("loss-balance",), words=("temperature", "squared"), nodes=("loss",))
def no_squared_heat(lab: Lab) -> None:
    """The soft loss is not multiplied by the squared temperature, and hardly counts beside the careless labels.

    Source: IntelLabs/distiller 122, no T*T in distillation loss.
    """
    x, labels = data.pixels()
    generator = torch.Generator().manual_seed(8)
    careless = torch.rand(len(x), generator=generator) < 0.45
    labels = torch.where(careless, (labels + 1) % 10, labels)
    policy = _DistillationPolicy(_teacher(), temperature=5.0, alpha=0.3, squared=lab.fixed)
    student = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    after = lab.validating(student, lambda _: data.unseen_pixels(), lambda x, y: F.cross_entropy(student(x), y))
    lab.fit(student, data.draw((x, labels)), lambda x, y: policy.loss(x, student(x), y), lr=5e-3, after=after)


class _Net(nn.Module):
    """Two convolutions and two dense layers, with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 24, 3, padding=1)
        self.dropout = nn.Dropout(0.1)
        self.fc1, self.fc2 = nn.Linear(384, 64), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2)
        return F.log_softmax(self.fc2(F.relu(self.fc1(self.dropout(x.flatten(1))))), dim=1)


def _singly(steps: int) -> Iterator[tuple[int, _Batch]]:
    """One digit after the other, in a random order."""
    loader = DataLoader(TensorDataset(*data.images()), batch_size=1, shuffle=True)
    for number, rows in enumerate(loader):
        if number == steps:
            return
        yield number, rows


@broken(
    rules=("learning-rate",),
    words=("learning rate", "batch of one", "batch size"),
    nodes=("model", "model.conv1.weight", "model.conv2.weight", "model.fc1.weight", "model.fc2.weight"),
)
def rate_of_large_batches_for_single_digits(lab: Lab) -> None:
    """Batches of a single digit are learned at a rate for batches of 64, and the updates throw the net about.

    Source: pytorch/examples 276, MNIST with a batch size of one.
    """
    lab = replace(lab, steps=500)
    model = _Net()
    rate = 0.015 if lab.fixed else 0.2  # set-up bug: rate_of_large_batches_for_single_digits
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.5)
    lab.recorder.watch(model, optimizer)
    x, y = data.unseen_pixels()
    after = lab.validating(model, lambda _: (x.view(-1, 1, 8, 8), y), lambda x, y: F.nll_loss(model(x), y))
    for number, (digit, label) in _singly(lab.steps):
        with lab.recorder.step("train"):
            descend(F.nll_loss(model(digit), label), optimizer)
        after(number)
