"""Mistakes in modes, settings, and the flow of gradients, as a lecture on troubleshooting tells them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import VALIDATE_EVERY, Lab, descend

_Batch = tuple[torch.Tensor, ...]


class _Vgg(nn.Module):
    """Nine convolutions, each normalised."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(1 if i == 0 else width, width, 3, stride=2 if i == 3 else 1, padding=1, bias=False)
            for i in range(9)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width, momentum=0.2) for _ in range(9))
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)))
        return self.head(x.mean((2, 3)))


class _Runner:
    """Validates once before it trains, to see that all works, and then at times."""

    def __init__(self, lab: Lab, model: nn.Module) -> None:
        self.lab, self.model = lab, model
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        self.unseen = data.unseen_pixels()
        lab.recorder.watch(model, self.optimizer)

    @torch.no_grad()
    def validate(self) -> None:
        self.model.eval()
        pixels, classes = self.unseen
        with self.lab.recorder.step("validation") as step:
            step.record("loss", F.cross_entropy(self.model(pixels.view(-1, 1, 8, 8)), classes), type="loss")
        if self.lab.fixed:
            self.model.train()

    def train(self) -> None:
        self.validate()
        number = 0
        while number < self.lab.steps:
            for images, classes in DataLoader(TensorDataset(*data.images()), 64, shuffle=True, drop_last=True):
                with self.lab.recorder.step("train"):
                    descend(F.cross_entropy(self.model(images), classes), self.optimizer)  # bug: never_back_to_training
                number += 1
                if number % VALIDATE_EVERY == 0:
                    self.validate()


@broken(
    rules=("batch-norm-mode",),
    words=("train()", "eval()", "evaluation mode", "training mode"),
    nodes=("model", *(f"model.norms.{i}" for i in range(9))),
)  # fmt: skip
def never_back_to_training(lab: Lab) -> None:
    """A validation before the first step leaves the net in evaluation mode, and its norms never see their batches.

    Source: Tobin, Troubleshooting Deep Neural Networks, most common bugs, 4: forgot to set up train mode correctly.
    """
    _Runner(lab, _Vgg()).train()


class _MixerLayer(nn.Module):
    """Mixes patches, and then features."""

    def __init__(self, patches: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.patches = nn.Sequential(nn.Linear(patches, 24), nn.GELU(), nn.Linear(24, patches))
        self.features = nn.Sequential(nn.Linear(width, 48), nn.GELU(), nn.Linear(48, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.patches(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.features(self.norm2(x))


class _Mixer(nn.Module):
    """An MLP-Mixer of two layers for digits of 16 patches."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, width, 2, stride=2)
        self.layers = nn.Sequential(_MixerLayer(16, width), _MixerLayer(16, width))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches = self.embed(images).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.layers(patches)).mean(1))


@broken(rules=("learning-rate",), words=("learning rate",), nodes=("model.head.weight", "model.embed.weight"))
def mixer_at_twenty_times_its_rate(lab: Lab) -> None:
    """A mixer is trained by SGD with momentum at a learning rate of 2, twenty times what it bears, and diverges.

    Source: Tobin, Troubleshooting Deep Neural Networks, overfit a batch, error goes up: learning rate too high.
    """
    model = _Mixer()
    rate = 0.1 if lab.fixed else 2.0  # set-up bug: mixer_at_twenty_times_its_rate
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=1e-3)
    pixels, classes = data.unseen_pixels()
    unseen = pixels.view(-1, 1, 8, 8), classes

    def loss_of(images: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(images), classes)

    after = lab.validating(model, lambda _: unseen, loss_of)
    lab.fit(model, data.draw(data.images()), loss_of, optimizer, after=after)


def _buoys(number: int) -> _Batch:
    """Pictures of waves ``(32, 1, 20, 20)`` with a buoy in them, and where it is, between -1 and 1."""
    generator = torch.Generator().manual_seed(number)
    where = 1.6 * torch.rand(32, 2, generator=generator) - 0.8
    grid = torch.linspace(-1, 1, 20)
    across = (grid - where[:, :1]).square()[:, None, :]
    down = (grid - where[:, 1:]).square()[:, :, None]
    phase = 6.2832 * torch.rand(32, 1, 1, generator=generator)
    waves = 0.4 * (9 * grid[:, None] + 2 * grid + phase).sin()
    return (3 * (-(across + down) / 0.04).exp() + waves + 0.2 * torch.randn(32, 20, 20, generator=generator))[
        :, None
    ], where


class _Finder(nn.Module):
    """Strided convolutions, and two coordinates."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 12, 4, stride=2, padding=1), nn.ELU(), nn.Conv2d(12, 24, 4, stride=2, padding=1), nn.ELU(),
        )  # fmt: skip
        self.point = nn.Sequential(nn.Flatten(), nn.Linear(600, 48), nn.ELU(), nn.Linear(48, 2))

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        return self.point(self.features(picture))


@broken(rules=("learning-rate",), words=("learning rate",), nodes=("model.point.1.weight", "model.features.0.weight"))
def buoys_sought_at_a_millionth(lab: Lab) -> None:
    """A net that shall find the place of a buoy is trained from scratch at a learning rate of one millionth.

    Source: Tobin, Troubleshooting Deep Neural Networks, overfit a batch, error plateaus: learning rate too low.
    """
    model = _Finder()
    rate = 2e-3 if lab.fixed else 1e-6  # set-up bug: buoys_sought_at_a_millionth
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)

    def loss_of(picture: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        return (model(picture) - where).square().sum(1).mean()

    after = lab.validating(model, lambda number: _buoys(80_000 + number), loss_of)
    lab.fit(model, _buoys, loss_of, optimizer, after=after)


class _Codec(nn.Module):
    """Compresses a signal to twelve whole numbers."""

    def __init__(self, *, straight: bool) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(48, 64), nn.GELU(), nn.Linear(64, 12))
        self.decoder = nn.Sequential(nn.Linear(12, 64), nn.GELU(), nn.Linear(64, 48))
        self.straight = straight

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        code = 4 * self.encoder(signal)
        whole = code.round()  # bug: rounded_without_a_way_back
        if self.straight:
            whole = code + (whole - code).detach()
        return self.decoder(whole / 4)


def _signals(number: int) -> tuple[torch.Tensor]:
    """Sums of four waves of fixed frequencies ``(64, 48)`` and any height."""
    generator = torch.Generator().manual_seed(number)
    moments = torch.arange(48.0)
    waves = torch.stack([wave(moments * f) for f in (0.13, 0.31, 0.52, 0.8) for wave in (torch.sin, torch.cos)])
    return (0.7 * torch.randn(64, 8, generator=generator) @ waves + 0.05 * torch.randn(64, 48, generator=generator),)


@broken(
    rules=("gradient-cut", "no-gradient"),
    words=(" round", ".round", "differentiable", "straight-through", "cut off"),
    nodes=("model.encoder", "model.encoder.0", "model.encoder.2", "model.encoder.0.weight", "model.encoder.2.weight"),
)  # fmt: skip
def rounded_without_a_way_back(lab: Lab) -> None:
    """A codec rounds its code, whose slope is zero everywhere, with no straight-through estimate for the encoder.

    Source: Tobin, Troubleshooting Deep Neural Networks, overfit a batch, error plateaus: gradients not flowing through.
    """
    model = _Codec(straight=lab.fixed)

    def loss_of(signal: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(signal), signal)

    after = lab.validating(model, lambda number: _signals(80_000 + number), loss_of)
    lab.fit(model, _signals, loss_of, torch.optim.Adam(model.parameters(), 5e-3), after=after)


class _UNet(nn.Module):
    """Down once and up again, with what was there before."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.LeakyReLU(0.1))
        self.down = nn.Sequential(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1), nn.LeakyReLU(0.1))
        self.middle = nn.Sequential(nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.LeakyReLU(0.1))
        self.up, self.exit = nn.ConvTranspose2d(2 * width, width, 2, stride=2), nn.Conv2d(2 * width, 1, 3, padding=1)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        fine = self.enter(picture)
        coarse = self.middle(self.down(fine))
        return self.exit(torch.cat([fine, self.up(coarse)], dim=1))


def _cells(number: int) -> _Batch:
    """Pictures of three cells ``(16, 1, 24, 24)`` in the glare of a lamp, and where the cells are."""
    generator = torch.Generator().manual_seed(number)
    grid = torch.arange(24.0)
    place = 4 + 16 * torch.rand(2, 16, 3, 1, 1, generator=generator)
    size = 2 + 2 * torch.rand(16, 3, 1, 1, generator=generator)
    away = (grid - place[0]).square() + (grid[:, None] - place[1]).square()
    inside = (away < size.square()).any(1).float()
    glare = 1.5 * torch.randn(16, 1, 1, generator=generator) * (grid / 12 - 1)
    return (1.6 * inside - 0.4 + glare + 0.5 * torch.randn(16, 24, 24, generator=generator))[:, None], inside[:, None]


@broken(
    rules=("shrinking-weights",),
    words=("weight decay", "weight_decay", "regulari"),
    nodes=("model", "model.enter.0.weight"),
)  # fmt: skip
def cells_under_a_heavy_decay(lab: Lab) -> None:
    """The weight decay of a net that finds cells is 0.2 where 0.0002 was meant, and draws all weights to zero.

    Source: Tobin, Troubleshooting Deep Neural Networks, overfit a batch, error plateaus: too much regularization.
    """
    model = _UNet()
    decay = 2e-4 if lab.fixed else 0.2  # set-up bug: cells_under_a_heavy_decay
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=decay)
    criterion = nn.BCEWithLogitsLoss()
    after = lab.validating(model, lambda number: _cells(80_000 + number), lambda x, y: criterion(model(x), y))
    lab.fit(model, _cells, lambda picture, cells: criterion(model(picture), cells), optimizer, after=after)
