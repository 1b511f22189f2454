"""Mistakes in trainings of diffusion models and variational autoencoders, drawn by dice from collections of faults."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]
_TIMES = 100
_KEPT = torch.cumprod(1 - torch.linspace(1e-3, 0.08, _TIMES), 0)
"""How much of the variance is still the picture's, after each time."""


def _diffused(x: torch.Tensor, generator: torch.Generator) -> _Batch:
    """Pictures or points with noise of a random time, the time, and the noise."""
    time = torch.randint(_TIMES, (len(x),), generator=generator)
    noise = torch.randn(x.shape, generator=generator)
    kept = _KEPT[time].view(-1, *[1] * (x.dim() - 1))
    return kept.sqrt() * x + (1 - kept).sqrt() * noise, time, noise


def _waves_of(time: torch.Tensor, width: int = 16) -> torch.Tensor:
    """A time as sines and cosines ``(n, width)``."""
    angles = torch.pi * time[:, None] / _TIMES * torch.arange(1, width // 2 + 1)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class _PointDenoiser(nn.Module):
    """Says the noise in points of the plane."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(18, width), nn.Linear(width, width)
        self.out = nn.Linear(width, 2)
        for layer in (self.fc1, self.fc2):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.fc1(torch.cat([x, _waves_of(time)], dim=1)))
        return self.out(F.relu(self.fc2(x)))


def _spirals(number: int) -> _Batch:
    """Points ``(256, 2)`` of a spiral with noise, the time, and the noise."""
    generator = torch.Generator().manual_seed(number)
    turn = 9.4248 * torch.rand(256, 1, generator=generator).sqrt()
    points = turn / 4.7 * torch.cat([turn.cos(), turn.sin()], dim=1)
    return _diffused(points, generator)


@broken(rules=("learning-rate",), words=("learning rate",), nodes=("model.fc1", "model.fc2", "model.fc2.weight"))
def spiral_at_the_rate_of_another_optimizer(lab: Lab) -> None:
    """A diffusion model is trained with Adam at the learning rate of a half that suited SGD, and its ReLUs die.

    Source: AutoTrainer (ICSE 2021), dying ReLU, mended by a lower learning rate.
    """
    model = _PointDenoiser()
    rate = 2e-3 if lab.fixed else 0.5  # set-up bug: spiral_at_the_rate_of_another_optimizer
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)

    def loss_of(x: torch.Tensor, time: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(x, time), noise)

    after = lab.validating(model, lambda number: _spirals(9000 + number), loss_of)
    lab.fit(model, _spirals, loss_of, optimizer, after=after)


class _DigitDenoiser(nn.Module):
    """Convolutions that say the noise in a digit; each layer is told the time."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.inwards = nn.Conv2d(1, width, 3, padding=1)
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.times = nn.ModuleList(nn.Linear(16, width) for _ in range(2))
        self.out = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.inwards(x))
        for conv, told in zip(self.convs, self.times, strict=True):
            x = F.relu(conv(x) + told(_waves_of(time))[:, :, None, None])
        return self.out(x)


class _Ddpm:
    """Trains a denoiser on digits, in epochs of shuffled batches."""

    def __init__(self, lab: Lab, rate: float) -> None:
        x, _ = data.images()
        self.lab, self.train, self.test = lab, x[:1100], x[1100:1400]
        self.model = _DigitDenoiser()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=rate, momentum=0.9)
        lab.recorder.watch(self.model, self.optimizer)

    def loss(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        blurred, time, noise = _diffused(x, generator)
        return F.mse_loss(self.model(blurred, time), noise)

    def run(self) -> None:
        generator = torch.Generator().manual_seed(8)
        for epoch in range(9):
            for rows in torch.randperm(len(self.train), generator=generator).split(64)[:17]:
                with self.lab.recorder.step("train"):
                    descend(self.loss(self.train[rows], generator), self.optimizer)
            if epoch % 2:
                with torch.no_grad(), self.lab.recorder.step("validation") as step:
                    step.record("loss", self.loss(self.test, torch.Generator().manual_seed(epoch)), type="loss")


@broken(
    rules=("learning-rate",), words=("learning rate",),
    nodes=("model.inwards", "model.convs.0", "model.convs.1", "model.out"),
)  # fmt: skip
def denoiser_of_dead_filters(lab: Lab) -> None:
    """The denoiser of digits is trained at a learning rate twenty times too high, at which its filters soon die.

    Source: AutoTrainer (ICSE 2021), dying ReLU, mended by a lower learning rate.
    """
    rate = 0.08 if lab.fixed else 0.4  # set-up bug: denoiser_of_dead_filters
    _Ddpm(lab, rate).run()


class _LevelDenoiser(nn.Module):
    """Says the grey level of each pixel of a digit, of which some are hidden (level 3)."""

    def __init__(self, width: int = 24, *, chances: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=2, dilation=2)
        self.head = nn.Conv2d(width, 3, 1)
        self.chances = chances

    def forward(self, level: torch.Tensor) -> torch.Tensor:
        x = self.embed(level).permute(0, 3, 1, 2).contiguous()
        x = x + F.gelu(self.conv1(x))
        scores = self.head(x + F.gelu(self.conv2(x)))
        return scores.log_softmax(1) if self.chances else scores  # bug: pixels_scored_without_a_softmax


def _hidden(number: int) -> _Batch:
    """Digits in three levels of grey ``(64, 8, 8)``, a random share of the pixels hidden, and as they were."""
    generator = torch.Generator().manual_seed(number)
    x, _ = data.images()
    rows = torch.randint(1100, (64,), generator=generator) + (300 if number >= 9000 else 0)
    level = torch.bucketize(x[rows, 0], torch.tensor([-0.4, 0.9]))
    share = 0.1 + 0.8 * torch.rand(64, 1, 1, generator=generator)
    hide = torch.rand(64, 8, 8, generator=generator) < share
    return level.masked_fill(hide, 3), level.masked_fill(~hide, -100)


@broken(rules=("unbounded-loss",), words=("softmax", "log-prob", "probabilit"), nodes=("model", "model.head", "loss"))
def pixels_scored_without_a_softmax(lab: Lab) -> None:
    """A discrete diffusion model gives plain scores, without a softmax, to a likelihood that takes log-probabilities.

    Source: UMLAUT (CHI 2021), check_softmax_computed_before_loss: softmax missing before a loss of probabilities.
    """
    model = _LevelDenoiser(chances=lab.fixed)
    criterion = nn.NLLLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(
        model, lambda number: _hidden(9000 + number), lambda level, truth: criterion(model(level), truth)
    )
    for number in range(lab.steps):
        level, truth = _hidden(number)
        with lab.recorder.step("train"):
            loss = criterion(model(level), truth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        after(number)


class _Vae(nn.Module):
    """An encoder with a norm, a few variables, a decoder with a norm."""

    def __init__(self, inputs: int, width: int, code: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU())
        self.mean, self.logvar = nn.Linear(width, code), nn.Linear(width, code)
        self.decoder = nn.Sequential(
            nn.Linear(code, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, inputs)
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> _Batch:
        hidden = self.encoder(x)
        mean, logvar = self.mean(hidden), self.logvar(hidden)
        code = mean + torch.randn_like(mean) * torch.exp(0.5 * logvar)
        return self.decoder(code), mean, logvar


def _elbo(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The squared error and the divergence, each per number that comes in."""
    rebuilt, mean, logvar = model(x)
    divergence = -0.5 * torch.sum(1 + logvar - mean.pow(2) - logvar.exp())
    return F.mse_loss(rebuilt, x) + 0.1 * divergence / x.numel()


@broken(
    rules=("frozen-parameters",),
    words=("frozen", "requires_grad", "freez"),
    nodes=("model.encoder.0", "model.decoder.0", "model.decoder.3"),
)
def adapted_by_its_norms_alone(lab: Lab) -> None:
    """To adapt a variational autoencoder to other pictures, all but its normalisations is frozen, its last layer too.

    Source: TrainCheck (OSDI 2025), pytorch-forum-84911, parameters frozen that were to be fine-tuned.
    """
    x, digit = data.pixels()
    model = _Vae(64, 96, 12)
    learning = torch.optim.Adam(model.parameters(), lr=3e-3)
    few, others = x[digit < 4], (-x[digit > 4].unflatten(1, (8, 8)).mT.flatten(1)).contiguous()
    for number in range(150):
        (batch, _) = data.draw((few, few))(number)
        descend(_elbo(model, batch), learning)
    for name, parameter in model.named_parameters():
        if not lab.fixed and not name.startswith(("encoder.1", "decoder.1")):
            parameter.requires_grad_(False)  # set-up bug: adapted_by_its_norms_alone

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return _elbo(model, x)

    train, test = others[:560], others[560:]
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    after = lab.validating(model, lambda _: (test, test), loss_of)
    lab.fit(model, data.draw((train, train)), loss_of, optimizer, after=after)


@broken(
    rules=("input-scale", "extreme-features"),
    words=("standardis", "unscaled", "scale of the input"),
    nodes=("input", "model.encoder.0", "model.decoder.3"),
)
def patients_coded_in_their_units(lab: Lab) -> None:
    """A variational autoencoder of patients gets thirty measurements in their units, and only the area counts.

    Source: DeepLocalize's benchmark (ICSE 2021), Stack Overflow 34673164, mended by normalising what comes in.
    """
    x, _ = data.raw_tumours()
    if lab.fixed:
        x = data.standardised(x)  # set-up bug: patients_coded_in_their_units
    train, test = x[:450], x[450:]
    model = _Vae(30, 48, 8)

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return _elbo(model, x)

    after = lab.validating(model, lambda _: (test, test), loss_of)
    lab.fit(model, data.draw((train, train)), loss_of, lr=5e-3, after=after)
