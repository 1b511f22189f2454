"""Mistakes in trainings on pictures and spectrograms, from a practitioner's list of reasons why a net does not work."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _ink() -> _Batch:
    """Digits ``(n, 1, 8, 8)`` from 0 to 1, and their classes."""
    x, y = data.images()
    return (x - x.min()) / (x.max() - x.min()), y


def _frames() -> _Batch:
    """What a camera of 9 rows and 21 columns sees of digits, as a flat row ``(n, 189)`` each, and the digits."""
    generator = torch.Generator().manual_seed(7)
    ink, label = _ink()
    frames = 0.2 * torch.rand(len(ink), 9, 21, generator=generator)
    top = torch.randint(2, (len(ink),), generator=generator).tolist()
    left = torch.randint(14, (len(ink),), generator=generator).tolist()
    for row, (down, right) in enumerate(zip(top, left, strict=True)):
        frames[row, down : down + 8, right : right + 8] += 0.8 * ink[row, 0]
    return frames.flatten(1), label


class _Finder(nn.Module):
    """Three convolutions, and the strongest of what they find, wherever it is."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(),
            nn.Conv2d(12, 24, 3, padding=1, stride=2), nn.BatchNorm2d(24), nn.ReLU(),
            nn.Conv2d(24, 48, 3, padding=1), nn.BatchNorm2d(48), nn.ReLU(),
        )  # fmt: skip
        self.classify = nn.Sequential(nn.BatchNorm1d(48), nn.Linear(48, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classify(self.features(x).amax((2, 3)))


@broken(rules=("scrambled-input",), words=("height", "rows and columns", "reshape", "laid out"), nodes=("input",))
def frames_with_their_sides_mixed_up(lab: Lab) -> None:
    """The flat frames of a camera have 9 rows of 21 pixels, and are cut into 21 rows of 9.

    Source: Slav Ivanov, 37 reasons why your neural network is not working (2017), 1: check your input data.
    """
    flat, digit = _frames()
    height, width = (9, 21) if lab.fixed else (21, 9)
    pictures = (flat.view(-1, 1, height, width) - 0.3) / 0.3  # set-up bug: frames_with_their_sides_mixed_up
    loader = DataLoader(TensorDataset(pictures[:1200], digit[:1200]), 64, shuffle=True, drop_last=True)
    unseen = pictures[1200:], digit[1200:]
    model = _Finder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda _: unseen, lambda x, y: F.cross_entropy(model(x), y))
    for epoch in range(7):
        for place, (x, y) in enumerate(loader):
            with lab.recorder.step("train"):
                descend(F.cross_entropy(model(x), y), optimizer)
            after(epoch * len(loader) + place)


class _Folders(Sampler[list[int]]):
    """Batches of numbers of pictures, in random order; with ``mixed`` each batch is of all classes."""

    def __init__(self, labels: torch.Tensor, batch: int, *, mixed: bool) -> None:
        self.labels, self.batch, self.mixed = labels, batch, mixed

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(len(self.labels))
        if not self.mixed:
            order = order[self.labels[order].argsort(stable=True)]  # set-up bug: a_folder_at_a_time
        batches = order[: len(self) * self.batch].view(-1, self.batch)
        yield from batches[torch.randperm(len(batches))].tolist()

    def __len__(self) -> int:
        return len(self.labels) // self.batch


@broken(
    rules=("single-class",),
    words=("one class", "single class", "same class", "single label", "one label"),
    nodes=("target", "input"),
)  # fmt: skip
def a_folder_at_a_time(lab: Lab) -> None:
    """Pictures lie in one folder for each class, and a batch is read from one folder: it has a single label.

    Source: Slav Ivanov, 37 reasons why your neural network is not working (2017), 10: batches with a single label.
    """
    x, y = data.images()
    pictures = TensorDataset(x, y)
    loader = DataLoader(pictures, batch_sampler=_Folders(y, 36, mixed=lab.fixed))
    vectors, labels = data.unseen_pixels()
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(12, 24, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 48), nn.ReLU(), nn.Linear(48, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    lab.recorder.watch(model, optimizer)
    unseen = vectors.view(-1, 1, 8, 8), labels
    after = lab.validating(model, lambda _: unseen, lambda x, y: F.cross_entropy(model(x), y))
    number = 0
    for _ in range(4):
        for images, digits in loader:
            with lab.recorder.step("train"):
                descend(F.cross_entropy(model(images), digits), optimizer)
            after(number)
            number += 1


def _sounds(number: int) -> _Batch:
    """Spectrograms ``(32, 1, 16, 24)`` of rising, falling, steady and trembling tones and of chords, and which."""
    generator = torch.Generator().manual_seed(number)
    kind = torch.randint(5, (32,), generator=generator)
    start = 4 + 8 * torch.rand(32, 1, generator=generator)
    time = torch.linspace(-1, 1, 24)
    bend = torch.stack([3 * time, -3 * time, 0 * time, 2 * (9 * time).sin(), 0 * time])[kind]
    band = torch.arange(16.0)[:, None]
    tone = torch.exp(-((band - (start + bend)[:, None]) ** 2))
    fifth = torch.exp(-((band - (start + 4 - 8 * (start > 8))[:, None]) ** 2))
    sound = tone + torch.where(kind == 4, 1.0, 0.0)[:, None, None] * fifth
    sound = sound + 0.25 * torch.randn(32, 16, 24, generator=generator)
    return ((sound - 0.13) / 0.4)[:, None], kind


def _masked(sound: torch.Tensor, bands: int, frames: int) -> torch.Tensor:
    """Hide as many neighbouring bands and frames of each sound, at random places."""
    high = torch.randint(17 - bands, (len(sound), 1))
    late = torch.randint(25 - frames, (len(sound), 1))
    band, frame = torch.arange(16), torch.arange(24)
    hidden_band = (band >= high) & (band < high + bands)
    hidden_frame = (frame >= late) & (frame < late + frames)
    return sound.masked_fill((hidden_band[:, :, None] | hidden_frame[:, None])[:, None], 0)


@broken(words=("augment", "masked"), nodes=("input",))
def masks_over_nearly_all_of_a_sound(lab: Lab) -> None:
    """The augmentation of spectrograms hides 12 of 16 bands and 20 of 24 frames, beside dropout: little is left.

    Source: Slav Ivanov, 37 reasons why your neural network is not working (2017), 13: too much data augmentation.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.AdaptiveAvgPool2d((4, 6)), nn.Flatten(),
        nn.Dropout(0.2), nn.Linear(576, 5),
    )  # fmt: skip
    bands, frames = (2, 3) if lab.fixed else (12, 20)

    def batches(number: int) -> _Batch:
        sound, kind = _sounds(number)
        return _masked(sound, bands, frames), kind  # set-up bug: masks_over_nearly_all_of_a_sound

    def loss_of(sound: torch.Tensor, kind: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(sound), kind)

    after = lab.validating(model, lambda number: _sounds(7000 + number), loss_of)
    lab.fit(model, batches, loss_of, torch.optim.Adam(model.parameters(), lr=2e-3), after=after)


class _Backbone(nn.Module):
    """A small net whose published weights were trained on pictures between -1 and 1."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 24, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24 * 36, 96), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(96, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


def _pretrained(x: torch.Tensor, y: torch.Tensor) -> _Backbone:
    """The net, trained before on other classes, its body frozen, with a new head for four classes."""
    model = _Backbone(6)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for number in range(120):
        rows, labels = data.draw((x, y), 48)(number)
        descend(F.cross_entropy(model(rows), labels), optimizer)
    model.body.requires_grad_(False)
    model.head = nn.Linear(96, 4)
    return model


@broken(rules=("input-scale",), words=("pretrain", "255", "bytes"), nodes=("input",))
def bytes_for_a_net_of_scaled_pictures(lab: Lab) -> None:
    """The frozen body was pretrained on pictures from -1 to 1, and is given bytes from 0 to 255 for fine-tuning.

    Source: Slav Ivanov, 37 reasons why your neural network is not working (2017), 14: preprocessing of your
    pretrained model.
    """
    ink, digit = _ink()
    known = digit < 6
    model = _pretrained(2 * ink[known] - 1, digit[known])
    photos, labels = (255 * ink[~known]).round(), digit[~known] - 6
    if lab.fixed:
        photos = photos / 127.5 - 1
    train = photos[:560], labels[:560]  # set-up bug: bytes_for_a_net_of_scaled_pictures
    optimizer = torch.optim.Adam(model.head.parameters(), lr=8e-3)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), y)

    after = lab.validating(model, lambda _: (photos[560:], labels[560:]), loss_of)
    lab.fit(model, data.draw(train, 32), loss_of, optimizer, after=after)


_SIDE = 640


def _signs(number: int) -> _Batch:
    """Photos ``(40, 1, 16, 16)`` of a bar, a column or a square; which, and where in 640 pixels ``(40, 2)``."""
    generator = torch.Generator().manual_seed(number)
    kind = torch.randint(3, (40,), generator=generator)
    place = 0.2 + 0.6 * torch.rand(40, 2, generator=generator)
    reach = torch.tensor([[1.0, 3.5], [3.5, 1.0], [2.0, 2.0]])[kind]
    pixel = torch.arange(16.0)
    inside = [((pixel - 16 * place[:, [side]]).abs() <= reach[:, [side]]).float() for side in (0, 1)]
    photo = inside[0][:, :, None] * inside[1][:, None] + 0.2 * torch.randn(40, 16, 16, generator=generator)
    return (photo / 0.35)[:, None], kind, _SIDE * place


class _Detector(nn.Module):
    """What it is, and where it is, from the same convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(1, 12, 5, padding=2, stride=2), nn.ReLU(), nn.Conv2d(12, 24, 3, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(24 * 64, 48), nn.ReLU(),
        )  # fmt: skip
        self.kind, self.place = nn.Linear(48, 3), nn.Linear(48, 2)

    def forward(self, photo: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen = self.trunk(photo)
        return self.kind(seen), _SIDE * self.place(seen).sigmoid()


@broken(
    rules=("loss-balance",),
    words=("outweigh", "dominat", "loss term", "terms of the loss"),
    nodes=("loss", "l1_loss"),
)  # fmt: skip
def pixels_outweigh_the_classes(lab: Lab) -> None:
    """The distance in hundreds of pixels is added to the cross-entropy of the classes without a weight.

    Source: Slav Ivanov, 37 reasons why your neural network is not working (2017), 20: adjust loss weights.
    """
    model = _Detector()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    weight = 0.01 if lab.fixed else 1.0
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        photo, kind, place = _signs(number)
        with lab.recorder.step("train"):
            scores, guess = model(photo)
            loss = F.cross_entropy(scores, kind) + weight * F.l1_loss(guess, place)  # bug: pixels_outweigh_the_classes
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 2.0)
            optimizer.step()
        lab.validate(lambda n: _signs(8000 + n)[:2], lambda x, y: F.cross_entropy(model(x)[0], y), number)
