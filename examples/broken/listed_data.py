"""Mistakes in data and in how it is prepared, drawn from practitioners' lists of common mistakes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _roads(number: int) -> _Batch:
    """Views of a road that bends ``(32, 1, 12, 16)``, and how far to steer to the right ``(32, 1)``."""
    generator = torch.Generator().manual_seed(number)
    bend, aside = torch.randn(2, 32, 1, 1, generator=generator)
    far = torch.linspace(1, 0, 12)[:, None]
    middle = 7.5 + 1.5 * aside * (1 - far) + 3 * bend * far**2
    road = (-((torch.arange(16) - middle) ** 2) / 3).exp() + 0.15 * torch.randn(32, 12, 16, generator=generator)
    return (road[:, None] - 0.2) / 0.35, 0.9 * bend[:, :, 0] + 0.3 * aside[:, :, 0]


class _Driver(nn.Module):
    """Two convolutions with strides, and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 12, 3, 2, 1), nn.Conv2d(12, 16, 3, 2, 1)
        self.fc1, self.fc2 = nn.Linear(16 * 12, 32), nn.Linear(32, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.elu(self.conv2(F.elu(self.conv1(x))))
        return self.fc2(F.elu(self.fc1(x.flatten(1))))


@broken(rules=("flipped-masks",), words=("flip", "mirror"), nodes=("target", "input"))
def road_flipped_without_its_steering(lab: Lab) -> None:
    """Half of the views are flipped from left to right, but the steering that belongs to them is not.

    Source: Karpathy, A Recipe for Training Neural Networks (2019), forgot to flip the labels with the image.
    """
    model = _Driver()

    def batches(number: int) -> _Batch:
        views, steering = _roads(number)
        chosen = torch.rand(len(views), generator=torch.Generator().manual_seed(number + 1)) < 0.5
        views = torch.where(chosen[:, None, None, None], views.flip(3), views)
        if lab.fixed:
            steering = torch.where(chosen[:, None], -steering, steering)
        return views, steering  # set-up bug: road_flipped_without_its_steering

    def loss_of(views: torch.Tensor, steering: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(views), steering)

    after = lab.validating(model, lambda number: _roads(4000 + number), loss_of)
    lab.fit(model, batches, loss_of, lr=2e-3, after=after)


_GROUND, _SPREAD = 0.847, 0.188
"""Mean and standard deviation of the slides that the checkpoint was trained on."""


def _slides(*, first: int, unseen: bool = False) -> data.Table:
    """Dark figures on bright slides ``(n, 1, 8, 8)``, of five kinds from ``first`` on."""
    x, y = data.unseen_pixels() if unseen else data.pixels()
    chosen = (y >= first) & (y < first + 5)
    ink = (x[chosen] - x.min()) / (x.max() - x.min())
    return 1 - 0.5 * ink.view(-1, 1, 8, 8), y[chosen] - first


def _pretrained() -> nn.Sequential:
    """A backbone that was trained to tell the first five kinds."""
    backbone = nn.Sequential(nn.Conv2d(1, 12, 3), nn.ReLU(), nn.Conv2d(12, 24, 3, 2), nn.ReLU(), nn.Flatten())
    net = nn.Sequential(backbone, nn.Linear(96, 5))
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    x, y = _slides(first=0)
    batches = data.draw(((x - _GROUND) / _SPREAD, y))
    for number in range(100):
        x, y = batches(number)
        descend(F.cross_entropy(net(x), y), optimizer)
    return backbone


@broken(
    rules=("input-scale",),
    words=("subtract", "shifted", "centre", "center", "mean of the input"),
    nodes=("input", "model.backbone", "model.backbone.0"),
)
def slides_without_the_original_mean(lab: Lab) -> None:
    """Slides are divided by the checkpoint's standard deviation, but its mean is not subtracted from them first.

    Source: Karpathy, A Recipe for Training Neural Networks (2019), a checkpoint without its original mean.
    """
    model = nn.Sequential()
    model.add_module("backbone", _pretrained())
    model.add_module("head", nn.Linear(96, 5))
    model.get_submodule("backbone").requires_grad_(False)
    optimizer = torch.optim.SGD(model.get_submodule("head").parameters(), lr=0.02, momentum=0.9)
    ground = _GROUND if lab.fixed else 0.0  # set-up bug: slides_without_the_original_mean

    def prepared(slides: data.Table) -> data.Table:
        return (slides[0] - ground) / _SPREAD, slides[1]

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), y)

    after = lab.validating(model, lambda _: prepared(_slides(first=5, unseen=True)), loss_of)
    lab.fit(model, data.draw(prepared(_slides(first=5)), 32), loss_of, optimizer, after=after)


class _Mixer(nn.Module):
    """Sixteen patches of four pixels, mixed across patches and within them."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, width, 2, 2)
        self.norm1, self.across = nn.LayerNorm(width), nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.norm2, self.within = nn.LayerNorm(width), nn.Sequential(nn.Linear(width, 48), nn.GELU(), nn.Linear(48, 24))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = x + self.across(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        x = x + self.within(self.norm2(x))
        return self.head(self.norm(x.mean(1)))


def _shard(index: int) -> TensorDataset:
    """One of twelve files with digits."""
    x, y = data.images()
    return TensorDataset(x[index::12], y[index::12])


@broken(
    rules=("duplicate-samples",), words=("duplicate", "copies", "repeat", "same samples", "same rows"), nodes=("input",)
)
def one_shard_read_twelve_times(lab: Lab) -> None:
    """The data set is put together from twelve files, but the first of them is read each time: all is duplicates.

    Source: Karpathy, A Recipe for Training Neural Networks (2019), discovered that the data contained duplicates.
    """
    shards = [_shard(index if lab.fixed else 0) for index in range(12)]  # set-up bug: one_shard_read_twelve_times
    table = tuple(torch.cat([shard.tensors[column] for shard in shards]) for column in range(2))
    model, (x, y) = _Mixer(), data.unseen_pixels()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    after = lab.validating(model, lambda _: (x.view(-1, 1, 8, 8), y), lambda x, y: F.cross_entropy(model(x), y))
    lab.recorder.watch(model, optimizer)
    number = 0
    for _ in range(8):
        for images, labels in DataLoader(TensorDataset(*table), 64, shuffle=True, drop_last=True):
            with lab.recorder.step("train"):
                descend(F.cross_entropy(model(images), labels), optimizer)
            after(number)
            number += 1


def _weather(hours: int, seed: int) -> _Batch:
    """Six sensors of a station ``(hours, 6)``, and the temperature ``(hours, 1)``, which is 999.9 where it failed."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(hours, 3, generator=generator)
    sensors = hidden @ torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    warm = 12 + 5 * hidden[:, :1] + 4 * (1.5 * hidden[:, 1:2]).sin() + 2 * hidden[:, 1:2] * hidden[:, 2:]
    warm[torch.rand(hours, generator=generator) < 0.02] = 999.9
    return data.standardised(sensors + 0.2 * torch.randn(hours, 6, generator=generator)), warm


@broken(rules=("extreme-batch",), words=("corrupt", "outlier", "sentinel"), nodes=("target",))
def failed_sensor_as_temperature(lab: Lab) -> None:
    """Of the temperatures to be learned, one in fifty is 999.9, which says that the sensor failed.

    Source: Karpathy, A Recipe for Training Neural Networks (2019), found corrupted images / labels.
    """
    sensors, warm = _weather(4000, 0)
    if lab.fixed:
        right = warm[:, 0] < 900
        sensors, warm = sensors[right], warm[right]
    table = TensorDataset(sensors, (warm - 12) / 6)  # set-up bug: failed_sensor_as_temperature
    model = nn.Sequential(nn.Linear(6, 64), nn.LayerNorm(64), nn.SiLU(), nn.Linear(64, 32), nn.SiLU(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8)
    lab.recorder.watch(model, optimizer)
    for _ in range(3):
        for sensors, warm in DataLoader(table, 64, shuffle=True, drop_last=True):
            with lab.recorder.step("train"):
                descend(F.mse_loss(model(sensors), warm), optimizer)
        schedule.step()


def _cohort() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ten measurements of patients ``(442, 10)``, three hundred columns of hashed identities, and their progress."""
    x, y = data.diabetes()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(2))
    hashes = torch.randn(len(x), 300, generator=torch.Generator().manual_seed(6))
    return x[order], hashes, y[order]


@broken(words=("columns", "irrelevant", "spurious", "identit"), nodes=("input", "model", "model.0", "model.0.weight"))
def identities_among_the_measurements(lab: Lab) -> None:
    """Hashed identities were left in the table: three hundred columns by which patients can be learned by heart.

    Source: Karpathy, A Recipe for Training Neural Networks (2019), features that may contain spurious signal.
    """
    measured, hashes, progress = _cohort()
    table = measured if lab.fixed else torch.cat([measured, hashes], 1)  # set-up bug: identities_among_the_measurements
    model = nn.Sequential(nn.Linear(table.shape[1], 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-2, nesterov=True)
    criterion = nn.MSELoss()
    after = lab.validating(model, lambda _: (table[320:], progress[320:]), lambda x, y: criterion(model(x), y))
    lab.fit(
        model, data.draw((table[:320], progress[:320]), 32), lambda x, y: criterion(model(x), y), optimizer, after=after
    )
