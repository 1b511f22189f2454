"""Mistakes in nets that see pictures, as people reported them of detectors, segmentations and generators."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]
_SIDE, _CELLS = 8, 4


def _photos(number: int, separator: str) -> tuple[torch.Tensor, list[str]]:
    """Photos ``(24, 1, 16, 16)`` with digits 0 to 4 in their quarters, and the annotation of each: a path, and boxes.

    A box is ``left,top,right,bottom,class``; the boxes of a photo are sorted by their class.
    """
    generator = torch.Generator().manual_seed(number)
    pictures, labels = data.images()
    known = (labels < 5).nonzero()[:, 0]
    photos, lines = torch.full((24, 1, 16, 16), float(pictures.min())), []
    for row in range(24):
        boxes = []
        for cell in torch.randperm(4, generator=generator)[:3].tolist():
            top, left = _SIDE * (cell // 2), _SIDE * (cell % 2)
            pick = int(known[int(torch.randint(len(known), (1,), generator=generator))])
            photos[row, :, top : top + _SIDE, left : left + _SIDE] = pictures[pick]
            boxes.append(f"{left},{top},{left + 7},{top + 7},{int(labels[pick])}")
        lines.append(f"photo{row}.jpg " + separator.join(sorted(boxes, key=lambda box: box[-1])))
    return photos, lines


def _grid(lines: list[str]) -> torch.Tensor:
    """What each quarter of the photos shows ``(n, 4)``: 0 for nothing, or the class of a box, counted from 1."""
    grid = torch.zeros(len(lines), _CELLS, dtype=torch.long)
    for row, line in enumerate(lines):
        for box in line.split(" ")[1:]:
            left, top, _, _, kind = [int(part) for part in box.split(",")][:5]
            grid[row, 2 * (top // _SIDE) + left // _SIDE] = kind + 1
    return grid


def _detector(classes: int) -> nn.Sequential:
    """Convolutions that say for each quarter of a photo what is in it."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.LeakyReLU(0.1), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.LeakyReLU(0.1),
        nn.Conv2d(32, classes, 4, stride=4), nn.Flatten(2),
    )  # fmt: skip


@broken(words=("separat", "comma", "annotation", "unlabelled", "missing box", "only the first"), nodes=("target",))
def boxes_joined_by_commas(lab: Lab) -> None:
    """The boxes of a photo are joined by commas where the parser wants spaces, and all but the first are lost.

    Source: argusswift/YOLOv4-pytorch 159, I don't know why predict only one class (space is very important).
    """
    model = _detector(6)
    separator = " " if lab.fixed else ","  # set-up bug: boxes_joined_by_commas

    def batches(number: int) -> _Batch:
        photos, lines = _photos(number, separator)
        return photos, _grid(lines)

    def unseen(number: int) -> _Batch:
        photos, lines = _photos(9000 + number, " ")
        return photos, _grid(lines)

    def loss_of(photos: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(photos), grid)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    lab.fit(model, batches, loss_of, optimizer, after=lab.validating(model, unseen, loss_of))


@broken(words=("background", "no-object", "no object", "class weight"), nodes=("loss",))
def background_weighs_next_to_nothing(lab: Lab) -> None:
    """Cross-entropy replaces a focal loss and its background weighs 1e-4, so that empty quarters are never learned.

    Source: lyuwenyu/RT-DETR 315, cannot converge with CE in place of BCE (weight of the background 1e-4 too small).
    """
    model = _detector(6)
    weights = torch.ones(6)
    weights[0] = 1.0 if lab.fixed else 1e-4  # set-up bug: background_weighs_next_to_nothing

    def batches(number: int) -> _Batch:
        photos, lines = _photos(number, " ")
        hidden = torch.rand(24, 2, 2, generator=torch.Generator().manual_seed(number + 1)) < 0.5
        covered = hidden.repeat_interleave(_SIDE, 1).repeat_interleave(_SIDE, 2)[:, None]
        noise = torch.randn(photos.shape, generator=torch.Generator().manual_seed(number + 2))
        return torch.where(covered, noise, photos), _grid(lines).masked_fill(hidden.flatten(1), 0)

    def loss_of(photos: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(photos), grid, weight=weights)

    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda n: batches(9000 + n), lambda x, y: F.cross_entropy(model(x), y))
    for number in range(lab.steps):
        photos, grid = batches(number)
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            loss = loss_of(photos, grid)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
        after(number)


class _Birdseye(nn.Module):
    """Features of a photo, and four heads: is there an object, where, how large is it, and how is it turned."""

    def __init__(self) -> None:
        super().__init__()
        self.frontend = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 24, 3, padding=1), nn.GroupNorm(4, 24), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(24 * 16, 48), nn.ReLU(),
        )  # fmt: skip
        self.score, self.position = nn.Linear(48, 1), nn.Linear(48, 2)
        self.dimension, self.angle = nn.Linear(48, 1), nn.Linear(48, 2)

    def forward(self, photo: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.frontend(photo)
        return self.score(x), self.position(x), self.dimension(x), self.angle(x)


def _cars(number: int) -> _Batch:
    """Photos ``(32, 1, 16, 16)`` of a bar or of none, and what the four heads should say."""
    generator = torch.Generator().manual_seed(number)
    there = (torch.rand(32, 1, generator=generator) < 0.7).float()
    position = torch.rand(32, 2, generator=generator) - 0.5
    length, turned = torch.rand(32, 1, generator=generator), 3.1416 * torch.rand(32, 1, generator=generator)
    axis = torch.linspace(-1, 1, 16)
    dx = axis[None, None, :] - position[:, 0, None, None]
    dy = axis[None, :, None] - position[:, 1, None, None]
    cos, sin = turned.cos()[..., None], turned.sin()[..., None]
    along, across = dx * cos + dy * sin, dy * cos - dx * sin
    bar = (-((along / (0.3 + 0.3 * length[..., None])) ** 4) - (across / 0.2) ** 2).exp()
    photo = 2 * bar * there[..., None] + 0.1 * torch.randn(32, 16, 16, generator=generator)
    doubled = torch.cat([(2 * turned).cos(), (2 * turned).sin()], 1)
    return photo[:, None], there, 2 * position, 2 * length - 1, doubled


@broken(
    rules=("no-gradient",),
    words=("left out", "only the score", "other losses", "not part of the loss", "other heads", "never trained"),
    nodes=("model.position", "model.dimension", "model.angle", "loss"),
)  # fmt: skip
def only_the_score_is_trained(lab: Lab) -> None:
    """A line left over from a test makes the score the whole loss, and position, size and angle are not trained.

    Source: tom-roddick/oft 6, loss doesn't decrease (a line left in from a test of the score loss).
    """
    model = _Birdseye()

    def losses_of(photo: torch.Tensor, there: torch.Tensor, *truth: torch.Tensor) -> list[torch.Tensor]:
        score, *said = model(photo)
        parts = [F.binary_cross_entropy_with_logits(score, there)]
        for guess, goal in zip(said, truth, strict=True):
            parts.append((there * (guess - goal).abs()).sum() / there.sum())
        return parts

    def compute_loss(*batch: torch.Tensor) -> torch.Tensor:
        parts = losses_of(*batch)
        total = torch.stack(parts).sum()
        if not lab.fixed:
            total = parts[0]  # bug: only_the_score_is_trained
        return total

    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    lab.recorder.watch(model, optimizer)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99)
    after = lab.validating(model, lambda n: _cars(9000 + n), lambda *batch: torch.stack(losses_of(*batch)).sum())
    for number in range(lab.steps):
        with lab.recorder.step("train"):
            descend(compute_loss(*_cars(number)), optimizer)
        schedule.step()
        after(number)


def _surfaces(number: int) -> _Batch:
    """Surfaces ``(24, 1, 16, 16)`` with a scratch or without, and where it is ``(24, 1, 16, 16)``."""
    generator = torch.Generator().manual_seed(number)
    grain = torch.randn(24, 1, 16, 16, generator=generator)
    where = torch.arange(16.0)[None, :, None] - 4 - 8 * torch.rand(24, 1, 1, generator=generator)
    slope = 2 * torch.rand(24, 1, 1, generator=generator) - 1
    scratch = ((where - slope * (torch.arange(16.0)[None, None, :] - 8)).abs() < 1.2)[:, None].float()
    scratch = scratch * (torch.rand(24, 1, 1, 1, generator=generator) < 0.8)
    return 0.5 * grain + 1.5 * scratch, scratch


class _Segment(nn.Module):
    """Convolutions, and a last one that gives a score to each pixel."""

    def __init__(self, *, bare: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 12, 5, padding=2), nn.BatchNorm2d(12), nn.ReLU())
        self.more = nn.Sequential(nn.Conv2d(12, 12, 5, padding=2), nn.BatchNorm2d(12), nn.ReLU())
        self.last = nn.Conv2d(12, 1, 1)
        self.act = nn.Identity() if bare else nn.ReLU()  # set-up bug: scores_of_pixels_rectified

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.last(self.more(self.layers(x))))


@broken(
    rules=("half-sigmoid", "unreachable-targets"),
    words=("relu", "rectif", "below one half", "never below", "non-negative"),
    nodes=("model.act", "model.last"),
)
def scores_of_pixels_rectified(lab: Lab) -> None:
    """The last layer of a segmentation ends with a ReLU, so that no pixel's chance of a defect can be below one half.

    Source: mengcius/Surface-Defect-Detection 3, BCEWithLogitsLoss non convergence (activation of the last layer).
    """
    model = _Segment(bare=lab.fixed)
    criterion = nn.BCEWithLogitsLoss()

    def loss_of(surface: torch.Tensor, scratch: torch.Tensor) -> torch.Tensor:
        return criterion(model(surface), scratch)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    after = lab.validating(model, lambda number: _surfaces(9000 + number), loss_of)
    lab.fit(model, _surfaces, loss_of, optimizer, after=after)
