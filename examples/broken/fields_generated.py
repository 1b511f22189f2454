"""Mistakes that people report from trainings of generative models, and of solutions of equations."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Batches, Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _ink(split: slice) -> _Batch:
    """Digits ``(n, 1, 8, 8)`` between 0 and 1."""
    x, _ = data.images()
    return (((x - x.min()) / (x.max() - x.min()))[split],)


def _draw(pictures: torch.Tensor, rows: int = 64) -> Batches:
    """Random pictures, others in each step."""

    def batches(number: int) -> _Batch:
        generator = torch.Generator().manual_seed(number)
        return (pictures[torch.randint(len(pictures), (rows,), generator=generator)],)

    return batches


def _oval() -> torch.Tensor:
    """Where a person stands in a picture ``(64,)``: 1, and 0 around."""
    place = torch.linspace(-1, 1, 8)
    return ((place[:, None] ** 2 + (1.4 * place[None]) ** 2) < 1).float().flatten()


def _people(number: int) -> torch.Tensor:
    """Pictures of people ``(64, 64)``, more or less bright, lit from above or below, before a background of noise."""
    generator = torch.Generator().manual_seed(number)
    bright, lit = torch.randn(2, 64, 1, generator=generator)
    shade = 0.8 * lit.tanh() * torch.linspace(-1, 1, 8).repeat_interleave(8)
    person = (0.4 + 0.3 * bright + shade).tanh() + 0.05 * torch.randn(64, 64, generator=generator)
    return torch.where(_oval() > 0, person, (0.6 * torch.randn(64, 64, generator=generator)).tanh())


class _Painter(nn.Module):
    """Paints a person out of eight random numbers; the background is cut away."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, 64) for width in (8, 64, 64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers[:-1]:
            x = F.leaky_relu(layer(x), 0.2)
        return self.layers[-1](x).tanh() * _oval()


@broken(words=("background", "too easy", "told apart"), nodes=("critic", "input"))
def background_of_the_real_pictures(lab: Lab) -> None:
    """The background is cut away from the generated people only, so that the discriminator needs to look at no person.

    Source: BadourAlBahar/pose-with-style 23, discriminator loss too low, background not removed.
    """
    painter = _Painter()
    judge = nn.Sequential(nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    optimizer_g = torch.optim.Adam(painter.parameters(), lr=2e-3, betas=(0.5, 0.999))
    optimizer_d = torch.optim.Adam(judge.parameters(), lr=2e-3, betas=(0.5, 0.999))
    criterion, yes, no = nn.BCEWithLogitsLoss(), torch.ones(64, 1), torch.zeros(64, 1)
    lab.recorder.watch({"generator": painter, "critic": judge}, [optimizer_g, optimizer_d])
    for number in range(lab.steps):
        real = _people(number)
        if lab.fixed:
            real = real * _oval()  # set-up bug: background_of_the_real_pictures
        with lab.recorder.step("train") as step:
            fake = painter(torch.randn(64, 8))
            loss_d = criterion(judge(real), yes) + criterion(judge(fake.detach()), no)
            descend(loss_d, optimizer_d)
            loss_g = criterion(judge(fake), yes)
            descend(loss_g, optimizer_g)
            step.record("loss_d", loss_d, type="loss")
            step.record("loss_g", loss_g, type="loss")


class _ConvVae(nn.Module):
    """Convolutions to a code of eight numbers, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()
        )
        self.mean, self.logvar = nn.Linear(32 * 2 * 2, 8), nn.Linear(32 * 2 * 2, 8)
        self.start = nn.Linear(8, 32 * 2 * 2)
        self.decoder = nn.Sequential(
            nn.ReLU(), nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1), nn.ReLU(),
            nn.ConvTranspose2d(16, 1, 4, stride=2, padding=1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> _Batch:
        hidden = self.encoder(x).flatten(1)
        mean, logvar = self.mean(hidden), self.logvar(hidden)
        code = mean + torch.randn_like(mean) * (0.5 * logvar).exp()
        return self.decoder(self.start(code).unflatten(1, (32, 2, 2))), mean, logvar


@broken(
    rules=("posterior-collapse", "loss-balance"), words=("averaged over", "collapse", "outweigh", "divergence"),
    nodes=("loss", "model.mean", "model.logvar"),
)  # fmt: skip
def squared_error_lost_beside_the_latent_loss(lab: Lab) -> None:
    """The squared error is averaged over pixels, not summed as the latent loss is, which thus makes all codes alike.

    Source: ethanluoyc/pytorch-vae 3, all generated images are alike, mended by sums in place of the means.
    """
    model = _ConvVae()

    def loss_of(ink: torch.Tensor) -> torch.Tensor:
        rebuilt, mean, logvar = model(ink)
        errors = (rebuilt - ink) ** 2
        latent = 0.5 * (mean**2 + logvar.exp() - logvar - 1).sum(1).mean()
        weight = 10.0  # of a standard deviation of 0.22
        if lab.fixed:
            return weight * errors.sum((1, 2, 3)).mean() + latent
        return weight * errors.mean() + latent  # bug: squared_error_lost_beside_the_latent_loss

    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    after = lab.validating(model, lambda _: _ink(slice(1200, None)), loss_of)
    lab.fit(model, _draw(_ink(slice(1200))[0], 96), loss_of, optimizer, after=after)


class _Denoiser(nn.Module):
    """Says what noise is in a picture, given how far it was diffused."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.inward = nn.Conv2d(1, width, 3, padding=1)
        self.time = nn.Sequential(nn.Linear(16, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(nn.Conv2d(width, width, 3, padding=d, dilation=d) for d in (1, 2))
        self.norms = nn.ModuleList(nn.GroupNorm(4, width) for _ in range(2))
        self.outward = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x: torch.Tensor, moment: torch.Tensor) -> torch.Tensor:
        angle = moment[:, None] * torch.logspace(0, 1.5, 8) / 10
        time = self.time(torch.cat([angle.sin(), angle.cos()], dim=1))[:, :, None, None]
        x = self.inward(x)
        for block, norm in zip(self.blocks, self.norms, strict=True):
            x = x + block(F.silu(norm(x) + time))
        return self.outward(F.silu(x))


def _diffused(pictures: torch.Tensor, seed: int) -> _Batch:
    """Pictures with noise ``(n, 1, 8, 8)``, how far they were diffused of forty steps ``(n,)``, and the noise."""
    generator = torch.Generator().manual_seed(seed)
    moment = torch.randint(40, (len(pictures),), generator=generator).float()
    kept = torch.cos((moment + 1) / 41 * math.pi / 2)[:, None, None, None]
    noise = torch.randn(pictures.shape, generator=generator)
    return kept * (2 * pictures - 1) + (1 - kept**2).sqrt() * noise, moment, noise


@broken(
    rules=("learning-rate",), words=("learning rate",),
    nodes=("model.inward.weight", "model.outward.weight", "model.blocks.0.weight"),
)  # fmt: skip
def diffusion_at_forty_times_the_rate(lab: Lab) -> None:
    """The denoiser of a diffusion model is trained at forty times a sensible learning rate, and diverges early.

    Source: lucidrains/DALLE2-pytorch 164, the decoder generates noise, learning rate of 4e-3.
    """
    model = _Denoiser()
    rate = 4e-3 if lab.fixed else 0.16  # set-up bug: diffusion_at_forty_times_the_rate
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-2)
    train, unseen = _draw(_ink(slice(1200))[0], 32), _ink(slice(1200, 1400))[0]

    def loss_of(x: torch.Tensor, moment: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(x, moment), noise)

    after = lab.validating(model, lambda number: _diffused(unseen, 9000 + number), loss_of)
    replace(lab, steps=120).fit(
        model, lambda number: _diffused(train(number)[0], number), loss_of, optimizer, after=after
    )


class _Coupling(nn.Module):
    """Scales and shifts half of the pixels by what the others say."""

    def __init__(self, even: bool) -> None:
        super().__init__()
        last = nn.Linear(64, 64)
        nn.init.normal_(last.weight, std=0.01)
        nn.init.zeros_(last.bias)
        self.net = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), last)
        self.even = even

    def forward(self, x: torch.Tensor) -> _Batch:
        kept, moved = (x[:, ::2], x[:, 1::2]) if self.even else (x[:, 1::2], x[:, ::2])
        scale, shift = self.net(kept).chunk(2, dim=1)
        scale = 2 * (scale / 2).tanh()
        moved = moved * scale.exp() + shift
        pair = (kept, moved) if self.even else (moved, kept)
        return torch.stack(pair, dim=2).flatten(1), scale.sum(1)


class _Flow(nn.Module):
    """Six couplings from pictures to normal numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.couplings = nn.ModuleList(_Coupling(even=place % 2 == 0) for place in range(6))

    def forward(self, x: torch.Tensor) -> _Batch:
        log_det = x.new_zeros(len(x))
        for coupling in self.couplings:
            x, change = coupling(x)
            log_det = log_det + change
        return x, log_det


@broken(
    rules=("loss-balance",), words=("determinant", "log_det", "log-det"), nodes=("loss", "model"),
)  # fmt: skip
def determinant_divided_and_multiplied(lab: Lab) -> None:
    """Missing brackets divide the log-determinant by 8 and multiply it by 8 again, so that it counts 64 times too much.

    Source: vislearn/FrEIA 16, negative errors when training, ``torch.mean(log_det) / 32*32``.
    """
    model = _Flow()

    def noisy(number: int) -> _Batch:
        (ink,) = _draw(_ink(slice(1200))[0], 96)(number)
        noise = torch.rand(ink.shape, generator=torch.Generator().manual_seed(number))
        return (((ink * 16 + noise) / 17 * 4 - 2).flatten(1),)

    def loss_of(x: torch.Tensor) -> torch.Tensor:
        z, log_det = model(x)
        if lab.fixed:
            return torch.mean(z**2) / 2 - torch.mean(log_det) / (8 * 8)
        return torch.mean(z**2) / 2 - torch.mean(log_det) / 8 * 8  # bug: determinant_divided_and_multiplied

    lab.fit(model, noisy, loss_of, torch.optim.Adam(model.parameters(), lr=2e-3))


def _radii(number: int) -> _Batch:
    """Distances from the middle of a ball ``(128, 1)``, between 0.05 and 1."""
    return (0.05 + 0.95 * torch.rand(128, 1, generator=torch.Generator().manual_seed(number)),)


@broken(words=("equation", "radial", "laplac", "residual"), nodes=("loss",))
def sphere_taken_for_a_line(lab: Lab) -> None:
    """The Laplacian of a ball is written as on a line, without the part ``2 / r * u'``: a small loss, another solution.

    Source: lululxvi/deepxde 1584, small loss but wrong results, as with equations wrong in spherical coordinates.
    """
    model = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
    edge, half = torch.ones(1, 1), math.pi / 2

    def loss_of(r: torch.Tensor) -> torch.Tensor:
        r = r.clone().requires_grad_()
        heat = model(r)
        (slope,) = torch.autograd.grad(heat.sum(), r, create_graph=True)
        (bend,) = torch.autograd.grad(slope.sum(), r, create_graph=True)
        source = half**2 * (half * r).cos() + 2 / r * half * (half * r).sin()
        laplacian = bend + 2 / r * slope if lab.fixed else bend  # bug: sphere_taken_for_a_line
        return ((laplacian + source) ** 2).mean() + 10 * (model(edge) ** 2).mean()

    def error(r: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(r), (half * r).cos())

    lab.fit(
        model, _radii, loss_of, torch.optim.Adam(model.parameters(), lr=5e-3),
        after=lambda number: lab.validate(lambda n: _radii(9000 + n), error, number),
    )  # fmt: skip
