"""Mistakes in nets for images, drawn by dice from published collections."""

from __future__ import annotations

from itertools import islice

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(),
    )  # fmt: skip


class _UNet(nn.Module):
    """One step down, one step up, and a shortcut between."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.down, self.bottom = _block(channels, width), _block(width, 2 * width)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.join, self.out = _block(2 * width, width), nn.Conv2d(width, 1, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        fine = self.down(image)
        coarse = self.up(self.bottom(F.max_pool2d(fine, 2)))
        return self.out(self.join(torch.cat([fine, coarse], 1)))


def _fruit(number: int, rows: int = 16) -> _Batch:
    """Colour photos ``(rows, 3, 16, 16)`` of red and green fruit as bright as each other, and where the red is."""
    generator = torch.Generator().manual_seed(number)
    place = 3 + 10 * torch.rand(rows, 4, 2, 1, 1, generator=generator)
    radius = 1.5 + 1.5 * torch.rand(rows, 4, 1, 1, generator=generator)
    grid = torch.arange(16.0)
    distance = ((grid[:, None] - place[:, :, 0]) ** 2 + (grid - place[:, :, 1]) ** 2).sqrt()
    disc = distance < radius
    green = disc[:, 2:].any(1)
    red = disc[:, :2].any(1) & ~green
    light = 0.3 + 0.4 * (red | green)[:, None].float() * torch.ones(1, 3, 1, 1)
    tint = red[:, None] * torch.tensor([0.25, -0.25, 0.0])[:, None, None]
    tint = tint + green[:, None] * torch.tensor([-0.25, 0.25, 0.0])[:, None, None]
    photo = light + tint + 0.08 * torch.randn(rows, 3, 16, 16, generator=generator)
    return (photo - 0.4) / 0.25, red[:, None].float()


@broken(words=("channel", "colour", "color", "grey"), nodes=("input", "model.down.0"))
def ripe_fruit_in_shades_of_grey(lab: Lab) -> None:
    """The photos are turned to grey before the net is to find the red fruit, which only its colour tells from green.

    Source: taxonomy of Humbatova et al. (ICSE 2020), training data quality, discarding important features.
    """
    model = _UNet(3, 8)

    def loaded(number: int, rows: int = 16) -> _Batch:
        photo, ripe = _fruit(number, rows)
        if not lab.fixed:
            photo = photo.mean(1, keepdim=True).expand_as(photo)  # set-up bug: ripe_fruit_in_shades_of_grey
        return photo, ripe

    def loss_of(photo: torch.Tensor, ripe: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(model(photo), ripe)

    after = lab.validating(model, lambda number: loaded(7000 + number, 100), loss_of)
    lab.fit(model, loaded, loss_of, lr=3e-3, after=after)


def _cells(rows: int, seed: int) -> _Batch:
    """Microscope images ``(rows, 1, 16, 16)`` of rings and discs in heavy noise, and where the rings are filled."""
    generator = torch.Generator().manual_seed(seed)
    place = 4 + 8 * torch.rand(rows, 2, 1, 1, generator=generator)
    radius = 2 + 2.5 * torch.rand(rows, 1, 1, generator=generator)
    grid = torch.arange(16.0)
    distance = ((grid[:, None] - place[:, 0]) ** 2 + (grid - place[:, 1]) ** 2).sqrt()
    image = 1.4 * (-((distance - radius) ** 2)).exp() + 0.8 * torch.randn(rows, 16, 16, generator=generator)
    return image[:, None], (distance < radius)[:, None].float()


@broken(
    rules=("overfitting",),
    words=("overfit", "memor", "too few samples", "by heart"),
    nodes=("model", "input"),
    onset=60,
)
def cells_of_a_dozen_slides(lab: Lab) -> None:
    """A wide net learns from twelve noisy slides, over and over, where the archive holds hundreds of them.

    Source: SageMaker Debugger, built-in rule Overfit.
    """
    slides = 600 if lab.fixed else 12
    table = TensorDataset(*_cells(slides, 1))  # set-up bug: cells_of_a_dozen_slides
    loader = DataLoader(table, batch_size=12, shuffle=True)
    unseen = _cells(150, 2)
    model = _UNet(1, 10)
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    lab.recorder.watch(model, optimizer)
    number = 0
    while number < 150:
        for image, inside in islice(loader, 150 - number):
            with lab.recorder.step("train"):
                optimizer.zero_grad()
                loss = F.binary_cross_entropy_with_logits(model(image), inside)
                loss.backward()
                optimizer.step()
            number += 1
            if number % 15 == 0:
                model.eval()
                with torch.no_grad(), lab.recorder.step("validation") as step:
                    mistake = F.binary_cross_entropy_with_logits(model(unseen[0]), unseen[1])
                    step.record("loss", mistake, type="loss")
                model.train()


class _Stages(nn.Module):
    """Three stages, a head for digits and one for turns; ``train()`` freezes the first stages, as some libraries do."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = 0
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.GroupNorm(4, o), nn.ReLU(), nn.MaxPool2d(2))
            for i, o in ((1, 16), (16, 32), (32, 64))
        )
        self.digit, self.turn = nn.Linear(32 * 4, 10), nn.Linear(64, 4)

    def train(self, mode: bool = True) -> _Stages:
        super().train(mode)
        for stage in self.stages[: self.frozen]:
            stage.requires_grad_(requires_grad=False)
        return self

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shared = self.stages[1](self.stages[0](image))
        return self.digit(shared.flatten(1)), self.turn(self.stages[2](shared).flatten(1))


def _turned(table: _Batch, number: int, count: int = 48) -> _Batch:
    """Digits, each turned by a random number of quarters, which is to be told."""
    generator = torch.Generator().manual_seed(number)
    rows = torch.randint(len(table[0]), (count,), generator=generator)
    turns = torch.randint(4, (count,), generator=generator)
    return torch.stack(
        [image.rot90(int(turn), (1, 2)) for image, turn in zip(table[0][rows], turns, strict=True)]
    ), turns


@broken(rules=("ignored-freezing",), words=("frozen", "freez"), nodes=("model.stages.0", "model.stages.1"))
def shared_stages_that_thaw(lab: Lab) -> None:
    """Stages that another head relies on should stay as they are, but only train() freezes them, and nobody calls it.

    Source: TrainCheck (OSDI 2025), mmpretrain-702, stages are frozen in ``train`` only.
    """
    digits, (x, y) = data.images(), data.unseen_pixels()
    unseen = x.unflatten(1, (1, 8, 8)), y
    model = _Stages()
    batches = data.draw(digits)
    learning = torch.optim.Adam(model.parameters(), lr=3e-3)
    for number in range(150):
        image, label = batches(number)
        descend(F.cross_entropy(model(image)[0], label), learning)
    turned = _turned(unseen, 7777, 300)

    def loss_of_both(image: torch.Tensor, label: torch.Tensor, askew: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(image)[0], label) + F.cross_entropy(model(askew)[1], turn)

    model.frozen = 2
    model.digit.requires_grad_(requires_grad=False)
    optimizer = torch.optim.SGD([*model.stages.parameters(), *model.turn.parameters()], lr=0.03, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 150)
    lab.recorder.watch(model, optimizer)
    for epoch in range(5):
        if lab.fixed:
            model.train()  # set-up bug: shared_stages_that_thaw
        for number in range(30 * epoch, 30 * epoch + 30):
            image, turn = _turned(digits, number)
            with lab.recorder.step("train"):
                descend(F.cross_entropy(model(image)[1], turn), optimizer)
            schedule.step()
        lab.validate(lambda _: (*unseen, *turned), loss_of_both, number)


class _Denoiser(nn.Module):
    """Says the noise in points of the plane, given how far the noising has come."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.time = nn.Linear(16, width)
        self.point = nn.Linear(2, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(4))
        self.out = nn.Linear(width, 2)

    def forward(self, point: torch.Tensor, moment: torch.Tensor) -> torch.Tensor:
        angle = moment[:, None] * torch.logspace(0, 1.5, 8)
        hidden = F.silu(self.point(point) + self.time(torch.cat([angle.sin(), angle.cos()], 1)))
        for layer in self.layers:
            hidden = F.silu(layer(hidden))
        return self.out(hidden)


def _noised(number: int, rows: int = 256) -> _Batch:
    """Points of a circle with noise of some moment between 0 and 1, the moments, and the noise."""
    generator = torch.Generator().manual_seed(number)
    angle = 6.2832 * torch.rand(rows, generator=generator)
    moment = torch.rand(rows, generator=generator)
    noise = torch.randn(rows, 2, generator=generator)
    clear = (1.5708 * moment).cos()[:, None]
    circle = 1.4 * torch.stack([angle.cos(), angle.sin()], 1)
    return clear * circle + (1 - clear**2).sqrt() * noise, moment, noise


def _from_scratch(module: nn.Module) -> None:
    """Normal weights of a hundredth, as older papers have them."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)


@broken(
    rules=("weight-scale",),
    words=("initial",),
    nodes=("model.point", *(f"model.layers.{place}{part}" for place in range(4) for part in ("", ".weight"))),
)
def denoiser_with_hundredths_for_weights(lab: Lab) -> None:
    """The denoiser's layers begin with normal weights of 0.01, so that at first nothing of the point comes through.

    Source: AutoTrainer (ICSE 2021), slow convergence, initialiser.
    """
    model = _Denoiser()
    if not lab.fixed:
        model.apply(_from_scratch)  # set-up bug: denoiser_with_hundredths_for_weights

    def loss_of(point: torch.Tensor, moment: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(point, moment), noise)

    after = lab.validating(model, lambda number: _noised(5000 + number, 2000), loss_of)
    lab.fit(model, _noised, loss_of, torch.optim.Adam(model.parameters(), lr=1e-3), after=after)
