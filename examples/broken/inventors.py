"""Mistakes of nets that invent pictures, drawn from reports."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import mlp

_Two = tuple[torch.Tensor, torch.Tensor]


def _greys() -> torch.Tensor:
    """Digits ``(n, 64)`` between 0 and 1."""
    x, _ = data.pixels()
    return (x - x.min()) / (x.max() - x.min())


def _roads(number: int) -> tuple[torch.Tensor]:
    """Views ``(32, 3, 32, 32)`` of a grey road, straight or bent, that leads through grass."""
    generator = torch.Generator().manual_seed(number)
    place, bend = (torch.rand(32, 1, 1, generator=generator) for _ in range(2))
    ahead, across = torch.linspace(0, 1, 32)[:, None], torch.linspace(0, 1, 32)
    distance = (across - 0.3 - 0.4 * place - 0.6 * (bend - 0.5) * ahead.square()).abs()
    grass = ((distance - 0.12) * 20).sigmoid()
    return (torch.stack([torch.full_like(grass, 0.4), 0.4 + 0.5 * grass, torch.full_like(grass, 0.4)], dim=1),)


class _World(nn.Module):
    """What a racing car sees, as a code of 16 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Sequential(
            nn.Conv2d(3, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 24, 4, 2, 1), nn.ReLU(), nn.Conv2d(24, 32, 4, 2, 1),
            nn.ReLU(), nn.Flatten(),
        )  # fmt: skip
        self.mean, self.log_variance = nn.Linear(512, 16), nn.Linear(512, 16)
        self.imagine = nn.Sequential(
            nn.Linear(16, 512), nn.Unflatten(1, (32, 4, 4)), nn.ReLU(), nn.ConvTranspose2d(32, 24, 4, 2, 1),
            nn.ReLU(), nn.ConvTranspose2d(24, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Sigmoid(),
        )  # fmt: skip
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, view: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        seen = self.see(view)
        mean, log_variance = self.mean(seen), self.log_variance(seen)
        return self.imagine(mean + torch.randn_like(mean) * (log_variance / 2).exp()), mean, log_variance


@broken(
    rules=("posterior-collapse", "loss-balance"), words=("divergence", "posterior", "outweigh"),
    nodes=("loss", "model.mean", "model.log_variance"),
)  # fmt: skip
def both_errors_averaged_over_all(lab: Lab) -> None:
    """The error of the pictures is averaged over their pixels instead of summed, ten times or not: the code collapses.

    Source: AppliedDataSciencePartners/WorldModels issue 12, where the original code sums over all dimensions.
    """
    model = _World()

    def loss_of(view: torch.Tensor) -> torch.Tensor:
        made, mean, log_variance = model(view)
        wrong = (view - made).square().flatten(1)
        apart = 1 + log_variance - mean.square() - log_variance.exp()
        lab.recorder.scalar("pixel error", wrong.detach().mean())
        if lab.fixed:
            return (wrong.sum(1) - 0.5 * apart.sum(1)).mean()
        return (10 * wrong.mean(1) - 0.5 * apart.mean(1)).mean()  # bug: both_errors_averaged_over_all

    replace(lab, steps=220).fit(model, _roads, loss_of, lr=2e-3)


@broken(
    rules=("posterior-collapse", "loss-balance"), words=("divergence", "posterior", "outweigh"),
    nodes=("loss", "binary_cross_entropy", "model.encoder"),
)  # fmt: skip
def entropy_not_times_the_pixels(lab: Lab) -> None:
    """The cross-entropy, a mean over 64 pixels, lost its factor of 64 and is tiny beside the sum of the divergence.

    Source: keras pull request 3383, the example's reconstruction loss lacks the multiplication by original_dim.
    """
    encoder, decoder = mlp(64, 48, 8), nn.Sequential(*mlp(4, 48, 64), nn.Sigmoid())
    model = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
    original_dim = 64

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        mean, log_variance = encoder(x).chunk(2, dim=1)
        made = decoder(mean + (log_variance / 2).exp() * torch.randn_like(mean))
        entropy = F.binary_cross_entropy(made, x)  # bug: entropy_not_times_the_pixels
        if lab.fixed:
            entropy = original_dim * entropy
        divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1).mean()
        lab.recorder.scalar("pixel error", F.mse_loss(made.detach(), x))
        return entropy + divergence

    optimizer = torch.optim.RMSprop(model.parameters(), 2e-3)
    lab.fit(model, data.draw((_greys(), data.pixels()[1]), 100), loss_of, optimizer)


class _Coded(nn.Module):
    """A variational autoencoder with residual convolutions; ``kl_coeff`` says how much the divergence weighs."""

    def __init__(self, kl_coeff: float, width: int = 16) -> None:
        super().__init__()
        self.kl_coeff = kl_coeff
        self.stem, self.inner = nn.Conv2d(1, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, 1, 1)
        self.fc_mu, self.fc_var = nn.Linear(256, width), nn.Linear(256, width)
        self.decoder = nn.Sequential(
            nn.Linear(width, 256), nn.ReLU(), nn.Unflatten(1, (16, 4, 4)), nn.Upsample(scale_factor=2),
            nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 1, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen = self.stem(x).relu()
        seen = (seen + self.inner(seen)).relu().flatten(1)
        mean = self.fc_mu(seen)
        found = torch.distributions.Normal(mean, (self.fc_var(seen) / 2).exp())
        code = found.rsample()
        prior = torch.distributions.Normal(torch.zeros_like(mean), 1.0)
        return self.decoder(code), (found.log_prob(code) - prior.log_prob(code)).mean()


@broken(
    rules=("posterior-collapse", "loss-balance"), words=("divergence", "posterior", "outweigh"),
    nodes=("loss", "model.fc_mu", "model.fc_var"),
)  # fmt: skip
def coefficient_stored_but_never_used(lab: Lab) -> None:
    """The small weight of the divergence is stored in the model, but not used: it weighs a hundred times more.

    Source: lightning-bolts issue 328, kl_coeff is initialised, stored, and never applied in the loss.
    """
    model = _Coded(kl_coeff=0.01)

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        made, divergence = model(x)
        error = F.mse_loss(made, x)
        lab.recorder.scalar("error", error.detach())
        if lab.fixed:
            return error + model.kl_coeff * divergence
        return error + divergence  # bug: coefficient_stored_but_never_used

    _, y = data.images()
    lab.fit(model, data.draw((_greys().unflatten(1, (1, 8, 8)), y)), loss_of, lr=2e-3)


def _distance(made: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """How far apart two sets of vectors are: the mean distance of their sorted shadows in 64 directions."""
    ways = F.normalize(torch.randn(made.shape[1], 64, generator=torch.Generator().manual_seed(7)), dim=0)
    return ((made @ ways).sort(0).values - (real @ ways).sort(0).values).abs().mean()


def _judged(lab: Lab, generator: nn.Module, real: torch.Tensor, number: int, width: int = 8) -> None:
    if number % 10 == 9:
        with torch.no_grad():
            made = generator(torch.randn(len(real), width, generator=torch.Generator().manual_seed(3))).flatten(1)
        lab.recorder.scalar("distance", _distance(made, real), step=number)


def _adversaries() -> tuple[nn.Module, nn.Module]:
    generator = nn.Sequential(nn.Linear(8, 64), nn.LeakyReLU(0.2), nn.Linear(64, 64), nn.Tanh())
    discriminator = nn.Sequential(nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1), nn.Sigmoid())
    return generator, discriminator


@broken(
    rules=("accumulated-gradients",), words=("zero_grad", "cleared", "add up"),
    nodes=("discriminator", "discriminator.0.weight", "discriminator.2.weight"),
)  # fmt: skip
def discriminator_never_cleared(lab: Lab) -> None:
    """``discriminator.zero_grad()`` is missing: its gradients, those of the generator's loss too, add up for ever.

    Source: code-soup issue 69, zero_grad of the discriminator is missing in the GAN.
    """
    generator, discriminator = _adversaries()
    make, judge = (torch.optim.Adam(net.parameters(), 2e-3, betas=(0.5, 0.999)) for net in (generator, discriminator))
    lab.recorder.watch({"generator": generator, "discriminator": discriminator}, [make, judge])
    pictures = 2 * _greys() - 1
    criterion, right, wrong = nn.BCELoss(), torch.ones(64, 1), torch.zeros(64, 1)
    for number in range(lab.steps):
        real, _ = data.draw((pictures, pictures))(number)
        with lab.recorder.step("train") as step:
            if lab.fixed:
                discriminator.zero_grad()
            with step.loss_group("real and fake"):
                criterion(discriminator(real), right).backward()  # set-up bug: discriminator_never_cleared
                fake = generator(torch.randn(64, 8))
                criterion(discriminator(fake.detach()), wrong).backward()
            judge.step()
            generator.zero_grad()
            with step.loss_group("generator"):
                criterion(discriminator(fake), right).backward()
            make.step()
        _judged(lab, generator, pictures[:300], number)


@broken(
    rules=("constant-data",), words=("zeros", "same target", "constant target"),
    nodes=("loss", "generator", "target 3"),
)  # fmt: skip
def generator_drawn_towards_zeros(lab: Lab) -> None:
    """The generator's error is that of its pictures against responses that were never set, all zeros: it learns black.

    Source: mlpack pull request 1933, the generator's gradient is computed from responses that are zero by default.
    """
    generator, critic = mlp(8, 64, 64), mlp(64, 64, 1, activation=lambda: nn.LeakyReLU(0.2))
    make, judge = (torch.optim.Adam(net.parameters(), 2e-3, betas=(0.5, 0.999)) for net in (generator, critic))
    lab.recorder.watch({"generator": generator, "critic": critic}, {"generator": make, "critic": judge})
    pictures = _greys()
    for number in range(200):
        real, _ = data.draw((pictures, pictures), 48)(number)
        with lab.recorder.step("train") as step:
            fake = generator(torch.randn(48, 8)).sigmoid()
            shown = critic(torch.cat([real, fake.detach()]))
            labels = torch.cat([torch.ones(48, 1), torch.zeros(48, 1)])
            with step.loss_group("critic"):
                descend(F.binary_cross_entropy_with_logits(shown, labels), judge)
            responses = torch.ones(48, 1) if lab.fixed else torch.zeros(48, 64)
            output = critic(fake) if lab.fixed else generator(torch.randn(48, 8))
            with step.loss_group("generator"):
                descend(
                    F.binary_cross_entropy_with_logits(output, responses), make
                )  # bug: generator_drawn_towards_zeros
        _judged(lab, nn.Sequential(generator, nn.Sigmoid()), pictures[:300], number)


def _changes(number: int) -> _Two:
    """A place before and after ``(32, 2, 12, 12)`` a house was built, and a map of it, drawn too far to a side."""
    generator = torch.Generator().manual_seed(number)
    row, column = (torch.randint(3, 7, (32, 1, 1), generator=generator) for _ in range(2))
    aside = 2 * torch.randint(2, (32, 1, 1), generator=generator) - 1
    down, right = torch.arange(12)[:, None], torch.arange(12)

    def house(shift: torch.Tensor) -> torch.Tensor:
        return ((down - row).abs() <= 2).float() * ((right - column - shift).abs() <= 2).float()

    before = 0.3 * torch.randn(32, 12, 12, generator=generator)
    return torch.stack([before, before + house(torch.zeros_like(row))], dim=1), house(aside)[:, None]


@broken(
    rules=("terms-without-gradient", "gradient-cut"), words=("detach", "does not reach", "passes no gradient"),
    nodes=("discriminator", "generator", "loss"),
)  # fmt: skip
def prediction_detached_for_the_generator(lab: Lab) -> None:
    """What the discriminator says of the fake is detached before the generator's loss, whose half then teaches nothing.

    Source: wangle53/CSA-CDGAN issue 5, pred_fake is detached, so that the loss cannot update anything.
    """
    generator = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 1, 3, padding=1), nn.Sigmoid(),
    )  # fmt: skip
    discriminator = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 32, 3, 2, 1), nn.LeakyReLU(0.2), nn.Flatten(),
        nn.Linear(288, 1), nn.Sigmoid(),
    )  # fmt: skip
    make, judge = (torch.optim.Adam(net.parameters(), 2e-3, betas=(0.5, 0.999)) for net in (generator, discriminator))
    lab.recorder.watch({"generator": generator, "discriminator": discriminator}, [make, judge])
    yes, no = torch.ones(32, 1), torch.zeros(32, 1)
    for number in range(200):
        scene, truth = _changes(number)
        with lab.recorder.step("train") as step:
            noise = torch.randn(32, 1, 1, 1).expand(-1, -1, 12, 12)
            found = generator(torch.cat([scene, noise], dim=1))
            pred_real = discriminator(torch.cat([scene, truth], dim=1))
            pred_fake = discriminator(torch.cat([scene, found.detach()], dim=1))
            with step.loss_group("discriminator"):
                descend(F.binary_cross_entropy(pred_real, yes) + F.binary_cross_entropy(pred_fake, no), judge)
            pred_fake = discriminator(torch.cat([scene, found], dim=1))
            if not lab.fixed:
                pred_fake = pred_fake.detach()  # bug: prediction_detached_for_the_generator
            with step.loss_group("generator"):
                descend(F.binary_cross_entropy(pred_fake, yes) + F.binary_cross_entropy(found, truth), make)
        lab.recorder.scalar("half decided", ((found - 0.5).abs() < 0.4).float().mean())
