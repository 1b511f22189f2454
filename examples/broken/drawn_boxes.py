"""Detectors of one thing in a picture, with the mistakes that their users reported."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Batches, Lab

_Batch = tuple[torch.Tensor, ...]
SIDE = 16


def _scenes(count: int, seed: int, *, on_the_ground: bool = False) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noisy pictures ``(n, 1, 16, 16)`` with a bright or a dark rectangle, its corners in 0 to 1, and which it is."""
    draws = torch.Generator().manual_seed(seed)
    size = 0.25 + 0.3 * torch.rand(count, 2, generator=draws)
    low = torch.rand(count, 2, generator=draws) * (1 - size)
    if on_the_ground:
        size = size * torch.tensor([1.0, 0.6])
        low[:, 1] = 0.95 - size[:, 1] - 0.15 * low[:, 1]
    boxes = torch.cat([low, low + size], dim=1)
    dark = torch.randint(2, (count,), generator=draws)
    line = (torch.arange(SIDE) + 0.5) / SIDE
    across = (line > boxes[:, :1]) & (line < boxes[:, 2:3])
    down = (line > boxes[:, 1:2]) & (line < boxes[:, 3:])
    thing = (down[:, :, None] & across[:, None]).float() * (1.0 - 2.0 * dark[:, None, None])
    return (thing + 0.2 * torch.randn(count, SIDE, SIDE, generator=draws))[:, None], boxes, dark


def _drawn(*table: torch.Tensor, batch: int = 32) -> Batches:
    def batches(number: int) -> _Batch:
        rows = torch.randint(len(table[0]), (batch,), generator=torch.Generator().manual_seed(number))
        return tuple(column[rows] for column in table)

    return batches


def _middle_and_size(boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]


class _Anchored(nn.Module):
    """A body with two heads over sixteen anchors: which class, if any, and how the box differs from the anchor."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU6(), nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32),
            nn.ReLU6(), nn.Conv2d(32, 32, 3, 1, 1), nn.ReLU6(),
        )  # fmt: skip
        self.classes, self.places = nn.Conv2d(32, 3, 3, 1, 1), nn.Conv2d(32, 4, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = self.body(x)
        return self.classes(maps).flatten(2), self.places(maps).flatten(2)


def _smooth(difference: torch.Tensor) -> torch.Tensor:
    """Squared up to 1, and linear beyond."""
    size = difference.abs()
    return torch.where(size < 1, 0.5 * size.square(), size - 0.5)


def _annotated_beyond_the_border(*, mended: bool) -> tuple[torch.Tensor, ...]:
    """Scenes of which one is annotated with a box that lies right of the picture; boxes are clipped to it."""
    x, boxes, dark = _scenes(300, seed=1)
    if not mended:
        boxes[117] = torch.tensor([1.04, 0.2, 1.31, 0.6])
    return x, boxes.clamp(0, 1), dark


@broken(
    rules=("non-finite",), words=("logarithm", "log of", "infinit", "empty box"),
    nodes=("target 4", "loss"), onset=7,
)  # fmt: skip
def box_beyond_the_border(lab: Lab) -> None:
    """A box lies outside its picture: clipped to it, it is empty, and the logarithm of its width is infinite.

    Source: tensorflow/models issue 1881, LossTensor is inf or nan while training ssd_inception_v2 on my own dataset.
    """
    model = _Anchored()
    table = _annotated_beyond_the_border(mended=lab.fixed)  # set-up bug: box_beyond_the_border
    optimizer = torch.optim.RMSprop(model.parameters(), 2e-3)

    def loss_of(x: torch.Tensor, boxes: torch.Tensor, dark: torch.Tensor) -> torch.Tensor:
        classes, places = model(x)
        middle, size = _middle_and_size(boxes)
        cell = (middle * 4).long().clamp(max=3)
        anchor, rows = cell[:, 1] * 4 + cell[:, 0], torch.arange(len(x))
        wanted = torch.cat([(middle - (cell + 0.5) / 4) / 0.25, (size / 0.4).log()], dim=1)
        labels = torch.zeros(len(x), 16, dtype=torch.long)
        labels[rows, anchor] = 1 + dark
        return F.cross_entropy(classes, labels) + _smooth(places[rows, :, anchor] - wanted).mean()

    lab.fit(model, _drawn(*table), loss_of, optimizer)


class _Yolo(nn.Module):
    """Each of sixteen cells says a place in it, a size, whether there is something, and what."""

    def __init__(self) -> None:
        super().__init__()
        self.darknet = nn.Sequential(
            nn.Conv2d(1, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12), nn.LeakyReLU(0.1),
            nn.Conv2d(12, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.LeakyReLU(0.1),
        )  # fmt: skip
        self.output = nn.Conv2d(24, 7, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output(self.darknet(x)).permute(0, 2, 3, 1)


def _corners_swapped(*, mended: bool) -> tuple[torch.Tensor, ...]:
    """Scenes; in a few annotations ``ymin`` is what should be ``ymax``."""
    x, boxes, dark = _scenes(400, seed=2)
    if not mended:
        boxes[40::90] = boxes[40::90][:, [0, 3, 2, 1]]
    return x, boxes, dark


@broken(
    rules=("non-finite",), words=("logarithm", "log of", "not a number", "negative size"),
    nodes=("target 5", "loss"), onset=11,
)  # fmt: skip
def lowest_above_the_highest(lab: Lab) -> None:
    """In some annotations ymin is larger than ymax, and the logarithm of such a height is not a number.

    Source: zzh8829/yolov3-tf2 issue 214, problem with loss = nan during training.
    """
    model = _Yolo()
    table = _corners_swapped(mended=lab.fixed)  # set-up bug: lowest_above_the_highest

    def loss_of(x: torch.Tensor, boxes: torch.Tensor, dark: torch.Tensor) -> torch.Tensor:
        said = model(x)
        middle, size = _middle_and_size(boxes)
        cell, rows = (middle * 4).long().clamp(max=3), torch.arange(len(x))
        there = torch.zeros(len(x), 4, 4)
        there[rows, cell[:, 1], cell[:, 0]] = 1
        own = said[rows, cell[:, 1], cell[:, 0]]
        wanted = (size / torch.tensor([0.35, 0.35])).log()
        wanted = torch.where(wanted.isinf(), torch.zeros_like(wanted), wanted)
        place = (own[:, :2].sigmoid() - (middle * 4 - cell)).square().sum(1) + (own[:, 2:4] - wanted).square().sum(1)
        sure = F.binary_cross_entropy_with_logits(said[..., 4], there, reduction="none").sum((1, 2))
        return (place + sure + F.cross_entropy(own[:, 5:], dark, reduction="none")).mean()

    lab.fit(model, _drawn(*table, batch=16), loss_of)


class _Corners(nn.Module):
    """Foresees the four numbers of a box."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.LeakyReLU(0.1), nn.MaxPool2d(2),
            nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(0.1), nn.MaxPool2d(2), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Linear(16 * width, 64), nn.LeakyReLU(0.1), nn.Linear(64, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


def _overlap(said: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Intersection over union."""
    low, high = torch.maximum(said[:, :2], boxes[:, :2]), torch.minimum(said[:, 2:], boxes[:, 2:])
    both = (high - low).clamp(min=0).prod(1)
    areas = (said[:, 2:] - said[:, :2]).clamp(min=0).prod(1) + (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return both / (areas - both)


def _validated(lab: Lab, model: nn.Module, x: torch.Tensor, boxes: torch.Tensor) -> Callable[[int], None]:
    """Validates the overlap of boxes in pictures as they are."""

    def loss_of(x: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        return 1 - _overlap(model(x), boxes).mean()

    return lambda number: lab.validate(_drawn(x, boxes, batch=100), loss_of, number)


@broken(rules=("flipped-masks",), words=("flip", "mirror"), nodes=("target", "input"))
def pictures_flipped_without_their_boxes(lab: Lab) -> None:
    """The augmentation flips pictures at random, and leaves the boxes where they were.

    Source: zzh8829/yolov3-tf2 issue 148, loss gets low but cannot detect anything in inference, even on training set.
    """
    model = _Corners()
    x, boxes, _ = _scenes(600, seed=3)
    draw = _drawn(x, boxes)

    def batches(number: int) -> _Batch:
        images, wanted = draw(number)
        draws = torch.Generator().manual_seed(10_000 + number)
        flipped = torch.rand(len(images), generator=draws) < 0.5
        images = torch.where(flipped[:, None, None, None], images.flip(3), images)
        images = images * (0.8 + 0.4 * torch.rand(len(images), 1, 1, 1, generator=draws))
        if lab.fixed:
            mirrored = torch.stack([1 - wanted[:, 2], wanted[:, 1], 1 - wanted[:, 0], wanted[:, 3]], dim=1)
            wanted = torch.where(flipped[:, None], mirrored, wanted)
        return images, wanted  # set-up bug: pictures_flipped_without_their_boxes

    longer = replace(lab, steps=180)
    after = _validated(longer, model, *_scenes(200, seed=9)[:2])
    longer.fit(model, batches, lambda x, y: F.smooth_l1_loss(model(x), y), after=after)


def _turned(x: torch.Tensor, boxes: torch.Tensor, angle: float = torch.pi / 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Mirrored pictures, turned by 60 degrees, and the boxes around their turned boxes."""
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    grid = F.affine_grid(F.pad(turn, (0, 1)).expand(len(x), 2, 3), list(x.shape), align_corners=False)
    x = F.grid_sample(x.flip(3), grid, align_corners=False)
    left, low, right, high = boxes.T
    corners = torch.stack([1 - right, low, 1 - left, low, 1 - right, high, 1 - left, high], dim=1).view(-1, 4, 2)
    corners = ((2 * corners - 1) @ turn + 1) / 2
    return x, torch.cat([corners.amin(1), corners.amax(1)], dim=1).clamp(0, 1)


@broken(words=("augment", "than in training", "not like those", "differ from those"), nodes=("input",), onset=30)
def every_picture_flipped_and_turned(lab: Lab) -> None:
    """The augmentation flips and turns every training picture, p=1.0: none looks like those that are to be judged.

    Source: ultralytics/ultralytics issue 10363, A.HorizontalFlip(p=1.0) and A.Affine(rotate=60.0, p=1.0).
    """
    model = _Corners()
    x, boxes, _ = _scenes(600, seed=4, on_the_ground=True)
    draw = _drawn(x, boxes)
    often = 0.2 if lab.fixed else 1.0

    def batches(number: int) -> _Batch:
        images, wanted = draw(number)
        chance = torch.rand(len(images), generator=torch.Generator().manual_seed(20_000 + number))
        chosen = chance < often  # set-up bug: every_picture_flipped_and_turned
        turned, around = _turned(images, wanted)
        return (
            torch.where(chosen[:, None, None, None], turned, images), torch.where(chosen[:, None], around, wanted)
        )  # fmt: skip

    longer = replace(lab, steps=180)
    after = _validated(longer, model, *_scenes(200, seed=9, on_the_ground=True)[:2])
    longer.fit(model, batches, lambda x, y: F.smooth_l1_loss(model(x), y), after=after)
