"""Mistakes in nets that look at pictures, from the published collections of faulty training programs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _markers(number: int) -> _Batch:
    """A red, a green and a blue marker ``(32, 3, 12, 12)``, and where they are ``(32, 6)``, from -1 to 1."""
    generator = torch.Generator().manual_seed(number)
    places = 2 * torch.rand(32, 3, 2, generator=generator) - 1
    grid = torch.linspace(-1.2, 1.2, 12)
    rows = (-((grid - places[..., :1]) ** 2) / 0.08).exp()
    columns = (-((grid - places[..., 1:]) ** 2) / 0.08).exp()
    pictures = rows[..., :, None] * columns[..., None, :]
    pictures = (pictures - 0.1) / 0.22 + 0.2 * torch.randn(32, 3, 12, 12, generator=generator)
    return pictures, places.flatten(1)


class _Tracker(nn.Module):
    """Convolutions with stride, a hidden layer, and six coordinates."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 32, 3, 2, 1)
        self.fc1, self.fc2 = nn.Linear(32 * 9, width), nn.Linear(width, 6)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        x = F.gelu(self.conv2(F.gelu(self.conv1(pictures))))
        return self.fc2(torch.tanh(self.fc1(x.flatten(1))))


@broken(
    rules=("single-unit",),
    words=("narrow", "bottleneck", "too few neurons", "number of neurons", "width of"),
    nodes=("model.fc1", "model.fc1.weight", "model.fc2", "model.fc2.weight"),
)
def six_coordinates_through_two_neurons(lab: Lab) -> None:
    """The hidden layer has two neurons, through which six coordinates that vary independently cannot pass.

    Source: taxonomy of Humbatova et al. (ICSE 2020), layer properties, wrong number of neurons.
    """
    model = _Tracker(width=96 if lab.fixed else 2)  # set-up bug: six_coordinates_through_two_neurons

    def loss_of(pictures: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        return F.smooth_l1_loss(model(pictures), places)

    after = lab.validating(model, lambda number: _markers(7000 + number), loss_of)
    lab.fit(model, _markers, loss_of, lr=3e-3, after=after)


def _cells(number: int) -> _Batch:
    """Pictures of round cells on a dark ground ``(8, 1, 20, 20)``, noisy, standardised, and where cells are."""
    generator = torch.Generator().manual_seed(number)
    grid = torch.arange(20.0)
    centres = 20 * torch.rand(8, 3, 2, generator=generator)
    radii = 2 + 2 * torch.rand(8, 3, generator=generator)
    away = (grid[:, None] - centres[..., 0, None, None]) ** 2 + (grid - centres[..., 1, None, None]) ** 2
    cells = (away < radii[..., None, None] ** 2).any(1).float()[:, None]
    pictures = (cells - 0.2) / 0.4 + 0.7 * torch.randn(8, 1, 20, 20, generator=generator)
    return pictures, cells


class _Segmenter(nn.Module):
    """A small U-Net: down, up, and one skip connection."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.BatchNorm2d(2 * width), nn.ReLU())
        self.up = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.head = nn.Conv2d(2 * width, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = self.enter(x)
        return self.head(torch.cat([fine, F.relu(self.up(self.down(fine)))], dim=1))


@broken(rules=("non-finite",), words=("logarithm", "log(", "log of"), nodes=("loss", "prediction", "model"), onset=94)
def entropy_of_cells_written_by_hand(lab: Lab) -> None:
    """The cross-entropy is written out with logarithms of chances, one of which becomes exactly 1: 0 times infinity.

    Source: defect4ML (EMSE 2023) after Zhang et al. (ISSTA 2018), Stack Overflow 33712178, NaN out of y * log(p).
    """
    model = _Segmenter()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        pictures, cells = _cells(number)
        with lab.recorder.step("train"):
            scores = model(pictures)
            if lab.fixed:
                loss = F.binary_cross_entropy_with_logits(scores, cells)
            else:
                chances = scores.sigmoid()
                entropy = cells * chances.log() + (1 - cells) * (1 - chances).log()
                loss = -entropy.mean()  # bug: entropy_of_cells_written_by_hand
            descend(loss, optimizer)


class _Reader(nn.Module):
    """Convolutions with batch norms, and a linear layer over what is averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        )  # fmt: skip
        self.classify = nn.Linear(32 * 4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classify(F.adaptive_avg_pool2d(self.features(x), 2).flatten(1))


@broken(words=("swapped", "mislabel", "mixed up", "confus", "wrong label", "contradict"), nodes=("target",))
def threes_and_eights_of_one_annotator(lab: Lab) -> None:
    """One of two annotators has taken threes for eights and eights for threes, in half of all the pictures.

    Source: SageMaker Debugger's built-in rules, Confusion: two classes are taken for one another.
    """
    x, y = data.images()
    if not lab.fixed:
        second = torch.arange(len(y)) % 2 == 1
        threes, eights = second & (y == 3), second & (y == 8)
        y = y.masked_fill(threes, 8).masked_fill(eights, 3)  # set-up bug: threes_and_eights_of_one_annotator
    model, epochs = _Reader(), 7
    loader = DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True, drop_last=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, nesterov=True, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=epochs * len(loader))
    lab.recorder.watch(model, optimizer)
    unseen, labels = data.unseen_pixels()
    unseen = unseen.view(-1, 1, 8, 8)
    after = lab.validating(model, lambda _: (unseen, labels), lambda x, y: F.cross_entropy(model(x), y))
    number = 0
    for _ in range(epochs):
        for images, digits in loader:
            with lab.recorder.step("train"):
                optimizer.zero_grad(set_to_none=True)
                F.cross_entropy(model(images), digits).backward()
                optimizer.step()
            schedule.step()
            after(number)
            number += 1


class _AllConvolutional(nn.Module):
    """Strides in place of pooling, and an average of the ten maps in place of a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 24, 3, padding=1), nn.Conv2d(24, 48, 3, 2, 1)
        self.conv3, self.maps = nn.Conv2d(48, 48, 3, 2, 1), nn.Conv2d(48, 10, 2)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        x = F.leaky_relu(self.conv2(F.leaky_relu(self.conv1(pictures))))
        return self.maps(F.leaky_relu(self.conv3(x))).mean((2, 3))


@broken(
    rules=("input-scale",),
    words=("standardis", "255", "bytes", "not scaled", "unscaled"),
    nodes=("input", "model.conv1", "model"),
)
def photos_of_digits_left_in_bytes(lab: Lab) -> None:
    """The pictures are given to the net with values from 0 to 255, as nothing divides them by 255.

    Source: DeepFD's benchmark (ICSE 2022), Stack Overflow 59325381, pixels that are not divided by 255.
    """
    ink, digits = data.pixels()
    darkest, brightest = ink.min(), ink.max()

    def read(ink: torch.Tensor) -> torch.Tensor:
        photos = ((ink - darkest) / (brightest - darkest) * 255).round().view(-1, 1, 8, 8)
        return photos / 255 if lab.fixed else photos  # set-up bug: photos_of_digits_left_in_bytes

    unseen, labels = data.unseen_pixels()
    model = _AllConvolutional()

    def loss_of(photos: torch.Tensor, digits: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(photos), digits)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.08, momentum=0.9, weight_decay=1e-4)
    after = lab.validating(model, lambda _: (read(unseen), labels), loss_of)
    lab.fit(model, data.draw((read(ink), digits)), loss_of, optimizer, after=after)
