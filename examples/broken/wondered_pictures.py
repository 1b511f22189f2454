"""Mistakes in trainings on pictures that people ask about: boxes, rates and loops."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab

_Batch = tuple[torch.Tensor, ...]
_SIDE = 16
_GRID = (torch.arange(4.0) + 0.5) / 4
_PRIORS = torch.stack([_GRID.repeat(4), _GRID.repeat_interleave(4), torch.full((16,), 0.4), torch.full((16,), 0.4)], 1)


def _scenes(number: int) -> _Batch:
    """Pictures ``(32, 1, 16, 16)`` of a plate or a frame, its corners in pixels ``(32, 4)``, and which it is."""
    generator = torch.Generator().manual_seed(number)
    size = torch.randint(5, 9, (32, 2), generator=generator)
    corner = (torch.rand(32, 2, generator=generator) * (_SIDE + 1 - size)).long()
    kind = torch.randint(1, 3, (32,), generator=generator)
    pictures = 0.2 * torch.randn(32, 1, _SIDE, _SIDE, generator=generator)
    for row in range(32):
        (x, y), (w, h) = corner[row].tolist(), size[row].tolist()
        pictures[row, 0, y : y + h, x : x + w] += 1.5
        if kind[row] == 2:
            pictures[row, 0, y + 1 : y + h - 1, x + 1 : x + w - 1] -= 1.5
    return pictures, torch.cat([corner, corner + size], 1).float(), kind


def _matched(boxes: torch.Tensor, kinds: torch.Tensor) -> _Batch:
    """What each prior has to say of its place ``(n, 16, 4)``, and of its class ``(n, 16)``, 0 for the background."""
    half = _PRIORS[:, 2:] / 2
    low = torch.maximum(boxes[:, None, :2], _PRIORS[:, :2] - half)
    high = torch.minimum(boxes[:, None, 2:], _PRIORS[:, :2] + half)
    common = (high - low).clamp(min=0).prod(2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)[:, None]
    overlap = common / (area + _PRIORS[:, 2:].prod(1) - common)
    hit = (overlap > 0.5) | F.one_hot(overlap.argmax(1), 16).bool()
    middle, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    offset = (middle[:, None] - _PRIORS[:, :2]) / _PRIORS[:, 2:] / 0.1
    scale = (size[:, None] / _PRIORS[:, 2:]).log() / 0.2
    return torch.cat([offset, scale], 2), hit * kinds[:, None]


class _Ssd(nn.Module):
    """Convolutions down to four by four places, and two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d(2), nn.Conv2d(32, 48, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.loc, self.conf = nn.Conv2d(48, 4, 3, padding=1), nn.Conv2d(48, 3, 3, padding=1)

    def forward(self, pictures: torch.Tensor) -> _Batch:
        x = self.base(pictures)
        return self.loc(x).flatten(2).transpose(1, 2), self.conf(x).flatten(2).transpose(1, 2)


@broken(rules=("target-scale",), words=("pixel", "normalis"), nodes=("target", "model.loc", "loss"))
def detector_whose_boxes_count_pixels(lab: Lab) -> None:
    """The data set of a detector gives boxes in pixels, while its priors are shares of the picture: no prior fits one.

    Source: amdegroot/ssd.pytorch 213, outputs are always the same; the values of the boxes in the own data set.
    """
    model = _Ssd()

    def batches(number: int) -> _Batch:
        pictures, boxes, kinds = _scenes(number)
        if lab.fixed:
            boxes = boxes / _SIDE
        return pictures, *_matched(boxes, kinds)  # set-up bug: detector_whose_boxes_count_pixels

    def loss_of(pictures: torch.Tensor, places: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        loc, conf = model(pictures)
        found = classes > 0
        place = F.smooth_l1_loss(loc[found], places[found], reduction="sum")
        kind = F.cross_entropy(conf.transpose(1, 2), classes, reduction="sum")
        return (place + kind) / found.sum()

    after = lab.validating(model, lambda number: batches(9000 + number), loss_of)
    lab.fit(model, batches, loss_of, torch.optim.Adam(model.parameters(), 3e-3), after=after)


class _Mnist(nn.Module):
    """Two convolutions, two linear layers, log-probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 10, 3, padding=1), nn.Conv2d(10, 20, 3)
        self.fc1, self.fc2 = nn.Linear(180, 50), nn.Linear(50, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv1(x))
        x = F.relu(F.max_pool2d(self.conv2(x), 2)).flatten(1)
        return F.log_softmax(self.fc2(F.relu(self.fc1(x))), dim=1)


@broken(
    rules=("learning-rate", "tiny-batch"),
    words=("learning rate",),
    nodes=("model.conv1.weight", "model.conv2.weight", "model.fc1.weight", "model.fc2.weight"),
)
def one_digit_a_step_at_the_rate_for_batches(lab: Lab) -> None:
    """The batch size is set to one, and the learning rate left where it was for batches, at which nothing is learned.

    Source: pytorch/examples 276, MNIST with batch size one, random accuracy until the rate is a tenth.
    """
    model = _Mnist()
    rate = 0.02 if lab.fixed else 0.2  # set-up bug: one_digit_a_step_at_the_rate_for_batches
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.5)
    x, y = data.unseen_pixels()
    unseen = x[y < 5].view(-1, 1, 8, 8), y[y < 5]
    after = lab.validating(model, lambda _: unseen, lambda x, y: F.nll_loss(model(x), y))
    x, y = data.images()
    digits = data.draw((x[y < 5], y[y < 5]), 1)
    replace(lab, steps=400).fit(model, digits, lambda x, y: F.nll_loss(model(x), y), optimizer, after=after)


def _keypoints(number: int) -> _Batch:
    """Grainy pictures ``(16, 1, 16, 16)`` with crosses and rings, and a bump for each on the map of its kind."""
    generator = torch.Generator().manual_seed(number)
    rows, columns = torch.arange(16.0)[:, None], torch.arange(16.0)
    y, x = torch.randint(3, 13, (2, 16, 2, 1, 1), generator=generator)
    far = (rows - y).square() + (columns - x).square()
    cross = ((rows == y[:, 0]) | (columns == x[:, 0])) & (far[:, 0] < 7)
    ring = (far[:, 1] > 2) & (far[:, 1] < 7)
    pictures = 1.5 * cross + 1.5 * ring + 0.4 * torch.randn(16, 16, 16, generator=generator)
    return pictures[:, None], (-far / 2).exp()


def _focal(scores: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """The focal loss of CenterNet: the middles count, and the less what is not one, the nearer it is."""
    chance = scores.sigmoid().clamp(1e-4, 1 - 1e-4)
    middle = maps == 1
    hit = ((1 - chance).square() * chance.log())[middle].sum()
    miss = ((1 - maps).pow(4) * chance.square() * (1 - chance).log())[~middle].sum()
    return -(hit + miss) / middle.sum()


class _CenterNet(nn.Module):
    """Convolutions at full width, and a head for the maps whose bias starts at a small chance."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(),
            nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.hm = nn.Conv2d(24, 2, 1)
        self.hm.bias = nn.Parameter(torch.full((2,), -2.19))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.hm(self.backbone(pictures))


class _Ctdet:
    """Trains for an epoch at a time, reorganised from CenterNet."""

    def __init__(self, lab: Lab, model: nn.Module) -> None:
        self.lab, self.model = lab, model
        self.optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
        lab.recorder.watch(model, self.optimizer)

    def run_epoch(self, epoch: int) -> None:
        for number in range(30 * epoch, 30 * epoch + 30):
            pictures, maps = _keypoints(number)
            with self.lab.recorder.step("train"):
                _focal(self.model(pictures), maps).backward()
                self.optimizer.step()  # bug: middles_whose_gradients_pile_up
                if self.lab.fixed:
                    self.optimizer.zero_grad()
        with torch.no_grad(), self.lab.recorder.step("validation") as step:
            pictures, maps = _keypoints(9000)
            step.record("loss", _focal(self.model(pictures), maps), type="loss")


@broken(
    rules=("accumulated-gradients",),
    words=("zero_grad", "accumulat"),
    nodes=("model", "model.backbone.0.weight", "model.backbone.2.weight", "model.backbone.4.weight", "model.hm.weight"),
)  # fmt: skip
def middles_whose_gradients_pile_up(lab: Lab) -> None:
    """The reorganised loop of a detector of middles lacks ``zero_grad``: each step adds to all the earlier gradients.

    Source: xingyizhou/CenterNet 928, the loss becomes huge and unchanged, until ``optimizer.zero_grad()`` is added.
    """
    trainer = _Ctdet(lab, _CenterNet())
    for epoch in range(5):
        trainer.run_epoch(epoch)
