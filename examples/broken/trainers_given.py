"""Mistakes in how pictures and tables are handed to a net: their layout, their scale, their type, who sees them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset, random_split

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import mlp

_Batch = tuple[torch.Tensor, ...]


def _sweets(number: int) -> _Batch:
    """Photos ``(32, 16, 16, 3)`` of up to eight sweets in red, green or blue, and how many are of each colour."""
    generator = torch.Generator().manual_seed(number)
    colour = torch.randint(4, (32, 8), generator=generator)
    place = torch.rand(32, 16, generator=generator).argsort(1)[:, :8]
    photos = torch.full((32, 16, 16, 3), 0.1)
    for sweet in range(8):
        row, column = 4 * (place[:, sweet] // 4) + 1, 4 * (place[:, sweet] % 4) + 1
        dye = F.one_hot(colour[:, sweet], 4)[:, :3].float()
        for down in (0, 1):
            for right in (0, 1):
                photos[torch.arange(32), row + down, column + right] += 0.8 * dye
    noisy = photos + 0.05 * torch.randn(photos.shape, generator=generator)
    return noisy, F.one_hot(colour, 4)[:, :, :3].sum(1).float()


class _Counter(nn.Module):
    """Sums over all places of a picture what small convolutions see there."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Sequential(nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 16, 3, stride=2), nn.ReLU())
        self.count = nn.Linear(16, 3)

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        return self.count(self.see(photos).sum((2, 3)))


@broken(rules=("scrambled-input",), words=("reshape", "permute", "layout", "channels last"), nodes=("input",))
def photos_reshaped_to_channels_first(lab: Lab) -> None:
    """Photos with their colours last are reshaped, not permuted, to colours first, which tears every pixel apart.

    Source: UMLAUT (CHI 2021), check_input_shape: image data may have an incorrect shape.
    """
    model = _Counter()

    def loss_of(photos: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        if lab.fixed:
            return F.l1_loss(model(photos.permute(0, 3, 1, 2)), counts)
        return F.l1_loss(model(photos.reshape(-1, 3, 16, 16)), counts)  # bug: photos_reshaped_to_channels_first

    lab.fit(model, _sweets, loss_of, lr=3e-3)


class _LeNet(nn.Module):
    """The net of 1998 for small pictures, with the activation of today."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 16, 3)
        self.fc1, self.fc2 = nn.Linear(144, 60), nn.Linear(60, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv1(x))
        x = F.avg_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


@broken(rules=("input-scale",), words=("standardi", "scale of the input", "0 to 255"), nodes=("input",))
def bytes_given_to_lenet(lab: Lab) -> None:
    """A LeNet is given pictures as they come from the file, with values from 0 to 255.

    Source: UMLAUT (CHI 2021), check_input_normalization: input data exceeds typical limits.
    """
    pictures, classes = data.images()
    low, high = pictures.min(), pictures.max()
    pictures = ((pictures - low) / (high - low) * 255).round()
    if lab.fixed:
        pictures = pictures / 127.5 - 1
    model = _LeNet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    batches = data.draw((pictures, classes))
    lab.fit(model, batches, lambda x, y: F.cross_entropy(model(x), y), optimizer)  # set-up bug: bytes_given_to_lenet


def _reader_of_tables(*, whole: bool) -> data.Table:
    """Measurements between 0 and 1, in a table made beforehand."""
    measured, harmless = data.raw_tumours()
    low, high = measured.min(0).values, measured.max(0).values
    table = torch.zeros(measured.shape, dtype=torch.int64 if whole else torch.float32)
    table[:] = (measured - low) / (high - low)  # set-up bug: table_of_whole_numbers
    return table, harmless


@broken(rules=("constant-data",), words=("integer", "whole number", "all zero", "rounded"), nodes=("input",))
def table_of_whole_numbers(lab: Lab) -> None:
    """Measurements between 0 and 1 are copied into a table of whole numbers, where nearly all of them become 0.

    Source: UMLAUT (CHI 2021), check_input_is_floating: the input is not a float type.
    """
    model = nn.Sequential(nn.Linear(30, 32), nn.ELU(), nn.Dropout(0.2), nn.Linear(32, 1), nn.Flatten(0))
    criterion = nn.BCEWithLogitsLoss()
    optimizer = torch.optim.NAdam(model.parameters(), 5e-3)
    batches = data.draw(_reader_of_tables(whole=not lab.fixed), 48)
    lab.fit(model, batches, lambda x, y: criterion(model(x.float()), y), optimizer)


@broken(rules=("overfitting",), words=("overfit", "memoris", "by heart"), nodes=("model", "loss"))
def thousand_neurons_for_patients(lab: Lab) -> None:
    """Two layers of 512 neurons without any regularisation learn three hundred patients by heart.

    Source: UMLAUT (CHI 2021), check_overfitting; SageMaker Debugger, Overfit.
    """
    width = 12 if lab.fixed else 512  # set-up bug: thousand_neurons_for_patients
    model = nn.Sequential(
        nn.Linear(10, width), nn.LeakyReLU(), nn.Linear(width, width), nn.LeakyReLU(), nn.Linear(width, 1)
    )
    x, y = data.diabetes()
    after = lab.validating(model, lambda _: (x[300:], y[300:]), lambda x, y: F.mse_loss(model(x), y))
    batches = data.draw((x[:300], y[:300]), 50)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    lab.fit(model, batches, lambda x, y: F.mse_loss(model(x), y), optimizer, after=after)


def _augmented(pictures: torch.Tensor, times: int) -> torch.Tensor:
    """Each picture several times, a little brighter or darker and noisy."""
    copies = pictures.repeat(times, 1)
    light = 1 + 0.1 * torch.randn(len(copies), 1)
    return light * copies + 0.15 * torch.randn_like(copies)


@broken(words=("leaked", "also in training", "seen in training", "copies", "duplicate"), nodes=("input",), onset=30)
def split_after_the_augmentation(lab: Lab) -> None:
    """Pictures are augmented first and split then, so that the validation sees copies of what was trained on.

    Source: UMLAUT (CHI 2021), check_high_validation_acc: suspiciously high accuracy in validation.
    """
    pixels, classes = (part[:150] for part in data.pixels())
    if lab.fixed:
        order = torch.randperm(150)
        fit, held = order[:120], order[120:]
        train = _augmented(pixels[fit], 8), classes[fit].repeat(8)
        held_out: _Batch = pixels[held], classes[held]
    else:
        everything = TensorDataset(_augmented(pixels, 8), classes.repeat(8))
        parts = random_split(everything, [960, 240])  # set-up bug: split_after_the_augmentation
        train, held_out = everything[parts[0].indices], everything[parts[1].indices]
    model = mlp(64, 64, 10, activation=nn.Tanh)
    optimizer = torch.optim.Adagrad(model.parameters(), 0.03)
    lab.recorder.watch(model, optimizer)
    batches = data.draw(train, 32)
    for number in range(lab.steps):
        x, y = batches(number)
        with lab.recorder.step("train"):
            descend(F.cross_entropy(model(x), y), optimizer)
        lab.validate(lambda _: held_out, lambda x, y: F.cross_entropy(model(x), y), number)
