"""Mistakes in networks that draw, compress, sort or cut out pictures and shapes, as dice drew them from collections."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab

_Batch = tuple[torch.Tensor, ...]


def _moons(number: int) -> torch.Tensor:
    """Two half-moons that reach into each other ``(256, 2)``, standardised."""
    generator = torch.Generator().manual_seed(number)
    upper = torch.rand(256, generator=generator) < 0.5
    angle = torch.pi * torch.rand(256, generator=generator)
    points = torch.stack([angle.cos(), angle.sin()], dim=1)
    points = torch.where(upper[:, None], points, torch.tensor([1.0, 0.5]) - points)
    points = points + 0.04 * torch.randn(256, 2, generator=generator)
    return (points - torch.tensor([0.5, 0.25])) / torch.tensor([0.87, 0.5])


class _Denoiser(nn.Module):
    """Says the noise in a point, from the point and the time, by five hidden layers."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.frequencies = 2.0 ** torch.arange(4)
        self.enter = nn.Linear(10, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(4))
        self.leave = nn.Linear(width, 2)

    def forward(self, points: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        phases = torch.pi * time * self.frequencies
        x = F.silu(self.enter(torch.cat([points, phases.sin(), phases.cos()], dim=1)))
        for layer in self.hidden:
            x = F.silu(layer(x))
        return self.leave(x)


def _small_normal(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def _he(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(module.bias)


@broken(
    rules=("weight-scale",),
    words=("initiali", "small weights"),
    nodes=("model", "model.enter", "model.hidden.0", "model.hidden.3"),
)
def noise_said_by_tiny_weights(lab: Lab) -> None:
    """All weights begin with a deviation of 0.02, as in far wider networks: the signal fades from layer to layer.

    Source: AutoTrainer (ICSE 2021), vanishing gradient: unsuitable initialisation of the weights.
    """
    model = _Denoiser()
    model.apply(_he if lab.fixed else _small_normal)  # set-up bug: noise_said_by_tiny_weights
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    lab.recorder.watch(model, optimizer)
    kept = torch.cumprod(1 - torch.linspace(1e-3, 0.12, 50), dim=0)
    order = torch.Generator().manual_seed(11)
    for number in range(lab.steps):
        points = _moons(number)
        moment = torch.randint(50, (256, 1), generator=order)
        noise = torch.randn(256, 2, generator=order)
        with lab.recorder.step("train"):
            noisy = kept[moment].sqrt() * points + (1 - kept[moment]).sqrt() * noise
            loss = F.mse_loss(model(noisy, moment / 50), noise)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _heartbeats(number: int) -> torch.Tensor:
    """Heartbeats of other heights, widths and places ``(64, 40)``, with a little noise."""
    generator = torch.Generator().manual_seed(number)
    height, width, place, second = torch.rand(4, 64, 1, generator=generator)
    moments = torch.linspace(0, 1, 40)
    first = (0.5 + height) * (-((moments - 0.25 - 0.2 * place) ** 2) / (0.003 + 0.006 * width)).exp()
    late = (second - 0.2) * (-((moments - 0.75) ** 2) / 0.008).exp()
    return 2 * (first + late) - 0.5 + 0.05 * torch.randn(64, 40, generator=generator)


class _Vae(nn.Module):
    """Heartbeats through six variables."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(40, 80), nn.Tanh())
        self.mean, self.logvar = nn.Linear(80, 6), nn.Linear(80, 6)
        self.decoder = nn.Sequential(nn.Linear(6, 80), nn.Tanh(), nn.Linear(80, 40))

    def forward(self, beats: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        hidden = self.encoder(beats)
        mean, logvar = self.mean(hidden), self.logvar(hidden)
        return self.decoder(mean + torch.randn_like(mean) * (0.5 * logvar).exp()), mean, logvar


@broken(
    rules=("weight-scale",),
    words=("alike", "identical", "symmetr", "same value"),
    nodes=("model", "model.encoder.0", "model.decoder.0"),
)
def heartbeats_of_equal_weights(lab: Lab) -> None:
    """Every weight begins as 0.05, so that all units of a hidden layer do and learn the same.

    Source: SageMaker Debugger, PoorWeightInitialization: all weights alike.
    """
    model = _Vae()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif lab.fixed:
            nn.init.xavier_uniform_(parameter)
        else:
            nn.init.constant_(parameter, 0.05)  # set-up bug: heartbeats_of_equal_weights

    def loss_of(beats: torch.Tensor) -> torch.Tensor:
        rebuilt, mean, logvar = model(beats)
        rest = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum(1).mean()
        return 10 * F.mse_loss(rebuilt, beats) + 0.05 * rest

    after = lab.validating(model, lambda number: (_heartbeats(8000 + number),), loss_of)
    lab.fit(model, lambda number: (_heartbeats(number),), loss_of, lr=4e-3, after=after)


def _signs(number: int, count: int = 64) -> _Batch:
    """Pictures of a bar, a cross, a frame or a disc ``(64, 1, 14, 14)`` at other places, and which it is."""
    generator = torch.Generator().manual_seed(number)
    kind = torch.randint(4, (count,), generator=generator)
    middle = 4.5 + 4 * torch.rand(2, count, 1, 1, generator=generator)
    size = 2.2 + 1.6 * torch.rand(count, 1, 1, generator=generator)
    grid = torch.arange(14.0)
    down, right = (grid[:, None] - middle[0]).abs(), (grid[None, :] - middle[1]).abs()
    inside = torch.maximum(down, right) <= size
    shapes = [
        inside & (right < 1),
        inside & ((down < 1) | (right < 1)),
        inside & (torch.maximum(down, right) > size - 1),
        down**2 + right**2 <= size**2,
    ]
    picture = torch.stack(shapes)[kind, torch.arange(count)].float()
    picture = picture + 0.3 * torch.randn(count, 14, 14, generator=generator)
    return (picture[:, None] - 0.15) / 0.45, kind


class _SignReader(nn.Module):
    """Two convolutions and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 12, 3, padding=1), nn.Conv2d(12, 24, 3, padding=1)
        self.fc1, self.fc2 = nn.Linear(24 * 9, 48), nn.Linear(48, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


@broken(
    rules=("accumulated-gradients",),
    words=("zero_grad", "accumulat", "cleared"),
    nodes=("model.conv1.weight", "model.conv2.weight", "model.fc1.weight", "model.fc2.weight"),
)
def signs_whose_gradients_pile_up(lab: Lab) -> None:
    """The loop never calls ``zero_grad``, so that each update is by the sum of all gradients since the beginning.

    Source: TrainCheck (OSDI 2025), stackoverflow-60335387: gradients are never cleared.
    """
    model, criterion = _SignReader(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.8)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        pictures, kinds = _signs(number)
        with lab.recorder.step("train"):
            loss = criterion(model(pictures), kinds)
            if lab.fixed:
                optimizer.zero_grad()
            loss.backward()  # bug: signs_whose_gradients_pile_up
            optimizer.step()
        lab.validate(lambda n: _signs(8000 + n, 256), lambda x, y: criterion(model(x), y), number)


def _cells(number: int) -> _Batch:
    """Grey pictures of three cells each ``(16, 1, 24, 24)`` from 0 to 255, and where there is one."""
    generator = torch.Generator().manual_seed(number)
    places = 24 * torch.rand(16, 3, 2, 1, 1, generator=generator)
    radius = 2.5 + 2 * torch.rand(16, 3, 1, 1, generator=generator)
    grid = torch.arange(24.0)
    distance = (grid[:, None] - places[:, :, 0]) ** 2 + (grid[None, :] - places[:, :, 1]) ** 2
    cell = (distance < radius**2).any(1, keepdim=True).float()
    light = 60 * torch.rand(16, 1, 1, 1, generator=generator) + 2 * grid
    picture = light + 70 * cell + 25 * torch.randn(16, 1, 24, 24, generator=generator)
    return picture.clamp(0, 255), cell


class _UNet(nn.Module):
    """Down twice and up again, with what was seen at each size handed across; tanh, as in old times."""

    def __init__(self, width: int = 10) -> None:
        super().__init__()
        self.down1 = nn.Conv2d(1, width, 3, padding=1)
        self.down2 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.bottom = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.up2 = nn.Conv2d(4 * width, width, 3, padding=1)
        self.up1 = nn.Conv2d(2 * width, width, 3, padding=1)
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        first = self.down1(picture).tanh()
        second = self.down2(F.avg_pool2d(first, 2)).tanh()
        x = self.bottom(F.avg_pool2d(second, 2)).tanh()
        x = self.up2(torch.cat([F.interpolate(x, scale_factor=2), second], dim=1)).tanh()
        x = self.up1(torch.cat([F.interpolate(x, scale_factor=2), first], dim=1)).tanh()
        return self.head(x)


@broken(rules=("input-scale",), words=("scale", "normali"), nodes=("input", "model.down1", "model"))
def cells_in_grey_values_up_to_255(lab: Lab) -> None:
    """The U-Net is given grey values from 0 to 255, with which the tanh of its first layer is at its ends.

    Source: DeepDiagnosis (ICSE 2022), saturated activation: input is not normalised.
    """
    model = _UNet()
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    lab.recorder.watch(model, optimizer)

    def batch(number: int) -> _Batch:
        picture, cell = _cells(number)
        return ((picture - 70) / 50 if lab.fixed else picture), cell  # set-up bug: cells_in_grey_values_up_to_255

    for number in range(lab.steps):
        pictures, masks = batch(number)
        with lab.recorder.step("train"):
            loss = F.binary_cross_entropy_with_logits(model(pictures), masks)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        lab.validate(lambda n: batch(8000 + n), lambda x, y: F.binary_cross_entropy_with_logits(model(x), y), number)
