"""Mistakes in nets that look at pictures, as the published collections of faulty programs list them."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Batches, Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _unseen() -> _Batch:
    x, y = data.unseen_pixels()
    return x.unflatten(1, (1, 8, 8)), y


class _LeNet(nn.Module):
    """Two convolutions, two linear layers, one output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 16, 3)
        self.fc1, self.fc2 = nn.Linear(16 * 3 * 3, 32), nn.Linear(32, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv1(x))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


def _binary_cross_entropy(chance: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """As in other frameworks: chances are clipped, so that no logarithm is infinite."""
    chance = torch.clip(chance, 1e-7, 1 - 1e-7)
    return -(truth * chance.log() + (1 - truth) * (1 - chance).log()).mean()


@broken(words=("sigmoid", "probabilit"), nodes=("model.fc2", "model"))
def odd_numbers_without_a_sigmoid(lab: Lab) -> None:
    """The output of the net is taken for a chance without a sigmoid, and clipped where it is none: no gradient there.

    Source: NeuraLint (TOSEM 2021), rule on a missing sigmoid behind a binary classifier.
    """
    model = _LeNet()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    lab.recorder.watch(model, optimizer)
    batches: Batches = data.draw(data.images())
    for number in range(lab.steps):
        x, y = batches(number)
        odd = (y % 2).float()[:, None]
        with lab.recorder.step("train"):
            chance = model(x)
            if lab.fixed:
                chance = torch.sigmoid(chance)
            descend(_binary_cross_entropy(chance, odd), optimizer)  # bug: odd_numbers_without_a_sigmoid


class _Detector(nn.Module):
    """Says whether a picture has a spot in it."""

    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 5), nn.BatchNorm2d(8), nn.LeakyReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16),
            nn.LeakyReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Linear(16, 1), last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x)).squeeze(1)


def _skies(number: int) -> _Batch:
    """Noisy pictures ``(32, 1, 16, 16)``, and whether a bright spot of 3 x 3 is in each."""
    generator = torch.Generator().manual_seed(number)
    sky = torch.randn(32, 1, 16, 16, generator=generator)
    there = torch.randint(2, (32,), generator=generator).bool()
    row, column = torch.randint(13, (2, 32), generator=generator)
    for index in there.nonzero()[:, 0].tolist():
        sky[index, 0, row[index] : row[index] + 3, column[index] : column[index] + 3] += 2.5
    return sky, there.float()


@broken(rules=("unreachable-targets", "single-class"), words=("softmax",), nodes=("model.classifier.1", "model"))
def spot_by_a_softmax(lab: Lab) -> None:
    """The detector ends with a softmax over its only output, so that it sees a spot in each picture, always.

    Source: NeuraLint (TOSEM 2021), rule on a wrong last activation of a binary classifier.
    """
    model = _Detector(nn.Sigmoid() if lab.fixed else nn.Softmax(1))  # set-up bug: spot_by_a_softmax
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    criterion = nn.BCELoss()
    after = lab.validating(model, lambda number: _skies(3000 + number), lambda x, y: criterion(model(x), y))
    lab.fit(model, _skies, lambda x, y: criterion(model(x), y), optimizer, after=after)


@broken(
    rules=("learning-rate",), words=("learning rate",), nodes=("model.0.weight", "model.3.weight", "model.8.weight")
)
def rate_that_kills_convolutions(lab: Lab) -> None:
    """The learning rate is ten times too high, and its steps throw all ReLUs of two layers below zero, where they stay.

    Source: AutoTrainer (ICSE 2021), dying ReLU, by the learning rate.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    rate = 0.03 if lab.fixed else 0.3  # set-up bug: rate_that_kills_convolutions
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    after = lab.validating(model, lambda _: _unseen(), lambda x, y: F.cross_entropy(model(x), y))
    lab.fit(model, data.draw(data.images()), lambda x, y: F.cross_entropy(model(x), y), optimizer, after=after)


def _scratches(number: int) -> _Batch:
    """Surfaces ``(32, 1, 14, 14)`` with short scratches: level, upright, falling or rising; and the direction."""
    generator = torch.Generator().manual_seed(number)
    direction = torch.randint(4, (32,), generator=generator)
    kernels = torch.stack([F.pad(torch.ones(1, 5), (0, 0, 2, 2)), F.pad(torch.ones(5, 1), (2, 2)), torch.eye(5),
                           torch.eye(5).flip(0)])  # fmt: skip
    seeds = (torch.rand(32, 1, 14, 14, generator=generator) < 0.03).float()
    scratched = F.conv2d(seeds.transpose(0, 1), kernels[direction][:, None], padding=2, groups=32).transpose(0, 1)
    return scratched + 0.3 * torch.randn(32, 1, 14, 14, generator=generator), direction


class _Inspector(nn.Module):
    """Three convolutions and an average over the places."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        widths = [1, 16, 24, 24]
        self.convs = nn.ModuleList(
            nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2) for inputs, outputs in pairwise(widths)
        )
        self.fc = nn.Linear(24, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv in self.convs:
            x = F.gelu(conv(x))
        return self.fc(x.mean((2, 3)))


@broken(
    words=("kernel", "filter size", "receptive", "neighbour"),
    nodes=("model.convs.0", "model.convs.1", "model.convs.2"),
)  # fmt: skip
def filters_of_a_single_pixel(lab: Lab) -> None:
    """The filters have a size of one, so that no convolution sees in which direction a scratch runs.

    Source: taxonomy of Humbatova et al. (ICSE 2020), layer properties, wrong filter size in a convolution.
    """
    model = _Inspector(3 if lab.fixed else 1)  # set-up bug: filters_of_a_single_pixel
    lab.fit(model, _scratches, lambda x, y: F.cross_entropy(model(x), y), lr=5e-3)
