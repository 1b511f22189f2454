"""Mistakes in generators and their critics, which the hacks for such games are meant to keep one from."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import mlp


def _apart(made: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """The energy distance of two samples: zero if they are of one distribution."""
    between = torch.cdist(made, real).mean()
    return 2 * between - torch.cdist(made, made).mean() - torch.cdist(real, real).mean()


def _leaky() -> nn.Module:
    return nn.LeakyReLU(0.2)


def _real_or_fake(scores: torch.Tensor, real: float) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, real))


def _validate(lab: Lab, generator: nn.Module, noise: torch.Tensor, real: torch.Tensor) -> None:
    """Record how far what is made is from what is real."""
    generator.eval()
    with torch.no_grad(), lab.recorder.step("validation") as step:
        step.record("distance", _apart(generator(noise).flatten(1), real.flatten(1)))
    generator.train()


def _skies(number: int) -> torch.Tensor:
    """Skies ``(64, 1, 8, 8)`` in bytes, that get brighter towards some side."""
    random = torch.Generator().manual_seed(number)
    angle, strength, light = torch.rand(3, 64, 1, 1, generator=random)
    places = torch.linspace(-1, 1, 8)
    side = (6.2832 * angle).cos() * places[:, None] + (6.2832 * angle).sin() * places
    bright = 128 + 60 * (light - 0.5) + 60 * (0.5 + 0.5 * strength) * side
    return (bright + 4 * torch.randn(64, 8, 8, generator=random)).clamp(0, 255).round()[:, None]


@broken(
    rules=("input-scale",),
    words=("normalise", "standardis", "unscaled", "bytes", "255"),
    nodes=("critic input", "critic", "critic.0", "critic.1"),
)
def real_skies_in_bytes(lab: Lab) -> None:
    """The real pictures go to the critic as bytes, up to 255, and those that are painted lie between -1 and 1.

    Source: ganhacks (Chintala et al.), 1: normalize the images between -1 and 1.
    """
    generator = nn.Sequential(*mlp(8, 96, 96, 64, activation=_leaky), nn.Tanh(), nn.Unflatten(1, (1, 8, 8)))
    critic = nn.Sequential(nn.Flatten(), *mlp(64, 96, 96, 1, activation=_leaky))
    made_by, judged_by = (torch.optim.Adam(net.parameters(), 1e-3, betas=(0.5, 0.99)) for net in (generator, critic))
    lab.recorder.watch({"generator": generator, "critic": critic}, {"generator": made_by, "critic": judged_by})
    for number in range(300):
        real = _skies(number)
        if lab.fixed:
            real = real / 127.5 - 1  # set-up bug: real_skies_in_bytes
        with lab.recorder.step("train"):
            fake = generator(torch.randn(64, 8))
            judged = _real_or_fake(critic(real), 1.0) + _real_or_fake(critic(fake.detach()), 0.0)
            descend(judged, judged_by)
            descend(_real_or_fake(critic(fake), 1.0), made_by)
        if number % 60 == 59:
            _validate(lab, generator, torch.randn(64, 8), _skies(9000 + number) / 127.5 - 1)


def _waves(number: int) -> torch.Tensor:
    """Waves of some speed and strength between -1 and 1 ``(64, 16)``."""
    random = torch.Generator().manual_seed(number)
    speed, phase, strength = torch.rand(3, 64, 1, generator=random)
    return (0.6 + 0.4 * strength) * ((0.3 + 0.4 * speed) * torch.arange(16.0) + 6.2832 * phase).sin() * 0.95


@broken(
    rules=("unreachable-targets",),
    words=("sigmoid", "tanh", "below zero", "cannot reach"),
    nodes=("generator", "generator.squash"),
)
def waves_out_of_a_sigmoid(lab: Lab) -> None:
    """The generator of waves between -1 and 1 ends with a sigmoid, and can make nothing below zero.

    Source: ganhacks (Chintala et al.), 1: tanh as the last layer of the generator output.
    """
    generator = mlp(8, 64, 64, 16, activation=_leaky)
    squash = nn.Tanh() if lab.fixed else nn.Sigmoid()
    generator.add_module("squash", squash)  # set-up bug: waves_out_of_a_sigmoid
    critic = mlp(16, 64, 64, 1, activation=_leaky)
    made_by = torch.optim.Adam(generator.parameters(), 2e-3, betas=(0.5, 0.9))
    judged_by = torch.optim.Adam(critic.parameters(), 2e-3, betas=(0.5, 0.9))
    lab.recorder.watch({"generator": generator, "critic": critic}, {"generator": made_by, "critic": judged_by})
    for number in range(300):
        real = _waves(number)
        with lab.recorder.step("train"):
            fake = generator(torch.randn(64, 8))
            judged = _real_or_fake(critic(real), 1.0) + _real_or_fake(critic(fake.detach()), 0.0)
            descend(judged, judged_by)
            descend(_real_or_fake(critic(fake), 1.0), made_by)
        if number % 60 == 59:
            _validate(lab, generator, torch.randn(64, 8), _waves(9000 + number))


def _genes(number: int) -> torch.Tensor:
    """The logarithms of how active ten genes are in cells ``(64, 10)``, which three processes move."""
    random = torch.Generator().manual_seed(number)
    processes = 0.3 * torch.randn(3, 10, generator=torch.Generator().manual_seed(1))
    return 2 + torch.randn(64, 3, generator=random) @ processes + 0.3 * torch.randn(64, 10, generator=random)


@broken(
    words=("saturat", "log(1 -", "log(1-", "minimises log"),
    nodes=("generator", "loss", *(f"generator.{layer}.{kind}" for layer in (0, 2, 4) for kind in ("weight", "bias"))),
)
def cells_by_the_formula_of_the_paper(lab: Lab) -> None:
    """The generator minimises log(1 - D) as the paper says, which is flat as long as the critic is sure of fakes.

    Source: ganhacks (Chintala et al.), 2: max log D in place of min log(1 - D).
    """
    generator = mlp(6, 48, 48, 10, activation=_leaky)
    critic = mlp(10, 48, 48, 1, activation=_leaky)
    made_by = torch.optim.SGD(generator.parameters(), 0.05)
    judged_by = torch.optim.SGD(critic.parameters(), 0.1)
    lab.recorder.watch({"generator": generator, "critic": critic}, {"generator": made_by, "critic": judged_by})
    for number in range(250):
        with lab.recorder.step("train"):
            for part in range(2):
                with torch.no_grad():
                    fake = generator(torch.randn(64, 6))
                real = _genes(2 * number + part)
                descend(_real_or_fake(critic(real), 1.0) + _real_or_fake(critic(fake), 0.0), judged_by)
            scores = critic(generator(torch.randn(64, 6)))
            if lab.fixed:
                descend(_real_or_fake(scores, 1.0), made_by)
            else:
                descend(-_real_or_fake(scores, 0.0), made_by)  # bug: cells_by_the_formula_of_the_paper
        if number % 50 == 49:
            _validate(lab, generator, torch.randn(64, 6), _genes(9000 + number))


def _spirals(number: int) -> torch.Tensor:
    """Points ``(96, 2)`` along a spiral."""
    random = torch.Generator().manual_seed(number)
    angle = 1.5 + 4.5 * torch.rand(96, 1, generator=random)
    points = angle * torch.cat([angle.cos(), angle.sin()], 1) / 3.5
    return points + 0.05 * torch.randn(96, 2, generator=random)


@broken(
    rules=("learning-rate",),
    words=("learning rate", "sgd", "hardly move"),
    nodes=("generator", *(f"generator.{layer}.{kind}" for layer in (0, 2, 4) for kind in ("weight", "bias"))),
)
def plain_descent_at_the_rate_of_adam(lab: Lab) -> None:
    """The generator is trained by plain SGD at the rate that suits Adam, 0.001, with which it hardly moves.

    Source: ganhacks (Chintala et al.), 9: use the Adam optimizer (for the generator).
    """
    generator = mlp(4, 48, 48, 2, activation=nn.ELU)
    critic = mlp(2, 64, 64, 1, activation=_leaky)
    kind = torch.optim.Adam if lab.fixed else torch.optim.SGD
    made_by = kind(generator.parameters(), lr=1e-3)  # set-up bug: plain_descent_at_the_rate_of_adam
    judged_by = torch.optim.Adam(critic.parameters(), lr=2e-3)
    lab.recorder.watch({"generator": generator, "critic": critic}, {"generator": made_by, "critic": judged_by})
    for number in range(300):
        with lab.recorder.step("train"):
            fake = generator(torch.randn(96, 4))
            least_squares = (critic(_spirals(number)) - 1).pow(2).mean() + critic(fake.detach()).pow(2).mean()
            descend(least_squares, judged_by)
            descend((critic(fake) - 1).pow(2).mean(), made_by)
        if number % 60 == 59:
            _validate(lab, generator, torch.randn(96, 4), _spirals(9000 + number))


class _Denoiser(nn.Module):
    """Takes the noise out of a signal, in small steps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(1, 24, 5, padding=2), nn.Conv1d(24, 24, 5, padding=2)
        self.out = nn.Conv1d(24, 1, 5, padding=2)

    def forward(self, noisy: torch.Tensor) -> torch.Tensor:
        return self.out(F.silu(self.conv2(F.silu(self.conv1(noisy)))))


def _steps(number: int) -> torch.Tensor:
    """Signals ``(48, 1, 32)`` that jump between -1 and 1 now and then."""
    random = torch.Generator().manual_seed(number)
    jumps = (torch.rand(48, 1, 32, generator=random) < 0.15).long().cumsum(2)
    return 2.0 * ((jumps + torch.randint(2, (48, 1, 1), generator=random)) % 2) - 1


@broken(
    rules=("unchanged-parameters", "rare-updates"),
    words=("never trained", "threshold", "not trained", "never updated", "never move"),
    nodes=("critic", *(f"critic.{layer}.{kind}" for layer in (0, 2, 5) for kind in ("weight", "bias"))),
)
def critic_that_waits_for_a_loss(lab: Lab) -> None:
    """The critic is trained only while its loss exceeds 1.5, which is more than a guess costs: it never learns.

    Source: ganhacks (Chintala et al.), 11: don't balance loss via statistics ("while lossD > A: train D").
    """
    generator = _Denoiser()
    critic = nn.Sequential(
        nn.Conv1d(1, 24, 5, 2, 2), _leaky(), nn.Conv1d(24, 32, 5, 2, 2), _leaky(), nn.Flatten(), nn.Linear(256, 1)
    )
    made_by = torch.optim.Adam(generator.parameters(), 2e-3, betas=(0.5, 0.9))
    judged_by = torch.optim.Adam(critic.parameters(), 1e-3, betas=(0.5, 0.9))
    lab.recorder.watch({"generator": generator, "critic": critic}, {"generator": made_by, "critic": judged_by})
    for number in range(200):
        real = _steps(number)
        with lab.recorder.step("train"):
            fake = generator(torch.randn(48, 1, 32))
            judged = _real_or_fake(critic(real), 1.0) + _real_or_fake(critic(fake.detach()), 0.0)
            judged_by.zero_grad()
            judged.backward()
            if lab.fixed or judged > 1.5:  # bug: critic_that_waits_for_a_loss
                judged_by.step()
            descend(_real_or_fake(critic(fake), 1.0), made_by)
        if number % 40 == 39:
            _validate(lab, generator, torch.randn(48, 1, 32), _steps(9000 + number))
