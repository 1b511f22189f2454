"""Mistakes that people report from trainings of generators, mixtures, equations, depths, and in few bits."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import mlp

_Batch = tuple[torch.Tensor, ...]


class _Deblur(nn.Module):
    """Adds to a picture what its blur took away."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.conv3 = nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, blurred: torch.Tensor) -> torch.Tensor:
        x = F.leaky_relu(self.conv1(blurred), 0.2)
        return blurred + self.conv3(F.leaky_relu(self.conv2(x), 0.2))


class _Critic(nn.Module):
    """Judges a sharp picture next to the blurred one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 16, 3, 2, 1), nn.Conv2d(16, 32, 3, 2, 1)
        self.fc = nn.Linear(128, 1)

    def forward(self, sharp: torch.Tensor, blurred: torch.Tensor) -> torch.Tensor:
        x = F.leaky_relu(self.conv1(torch.cat([sharp, blurred], dim=1)), 0.2)
        return self.fc(F.leaky_relu(self.conv2(x), 0.2).flatten(1))


@broken(
    rules=("unbounded-loss",), words=("penalty", "lipschitz", "unbounded", "unconstrained"), nodes=("critic", "loss")
)
def critic_without_its_penalty(lab: Lab) -> None:
    """The critic of a Wasserstein GAN has no gradient penalty in its loss: its scores grow and drown the other errors.

    Source: LeeDoYup/DeblurGAN-tf 8, the loss of the critic has to use WGAN-GP.
    """
    x, _ = data.images()
    generator, critic = _Deblur(), _Critic()
    makes = torch.optim.Adam(generator.parameters(), lr=2e-3, betas=(0.5, 0.9))
    judges = torch.optim.Adam(critic.parameters(), lr=4e-3, betas=(0.5, 0.9))
    lab.recorder.watch({"generator": generator, "critic": critic}, {"generator": makes, "critic": judges})

    def pairs(number: int, first: int = 0, last: int = 1200) -> _Batch:
        rows = torch.randint(first, last, (24,), generator=torch.Generator().manual_seed(number))
        return x[rows], F.avg_pool2d(x[rows], 3, 1, 1)

    for number in range(120):
        with lab.recorder.step("train"):
            for turn in range(2):
                sharp, blurred = pairs(2 * number + turn)
                made = generator(blurred).detach()
                loss = critic(made, blurred).mean() - critic(sharp, blurred).mean()  # bug: critic_without_its_penalty
                if lab.fixed:
                    between = made.lerp(sharp, torch.rand(24, 1, 1, 1)).requires_grad_()
                    (slope,) = torch.autograd.grad(critic(between, blurred).sum(), between, create_graph=True)
                    loss = loss + 10 * (slope.flatten(1).norm(dim=1) - 1).square().mean()
                descend(loss, judges)
            made = generator(blurred)
            descend(5 * F.mse_loss(made, sharp) - critic(made, blurred).mean(), makes)
        lab.validate(lambda n: pairs(9000 + n, 1200, len(x)), lambda a, b: F.mse_loss(generator(b), a), number)


def _gusts(number: int) -> _Batch:
    """Wind ``(64, 1)``, seldom very strong, and whether a shutter is at -1, 0 or 1, which the wind tells mostly."""
    generator = torch.Generator().manual_seed(number)
    wind = torch.randn(64, 1, generator=generator)
    if number == 80:
        wind[::32] = 90 * torch.tensor([[1.0], [-1.0]])
    lot = torch.rand(64, 1, generator=generator)
    stands = torch.where(
        lot < torch.sigmoid(3 * wind - 2), 1.0, torch.where(lot < torch.sigmoid(3 * wind + 2), 0.0, -1.0)
    )
    return wind, stands + 0.1 * torch.randn(64, 1, generator=generator)


class _Mdn(nn.Module):
    """Weights of three normal distributions by a small net; their means and deviations are parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = mlp(1, 16, 3)
        self.means, self.widths = nn.Parameter(torch.tensor([-0.8, 0.1, 0.7])), nn.Parameter(torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weights(x)

    def likelihood(self, logits: torch.Tensor, y: torch.Tensor, *, stable: bool) -> torch.Tensor:
        """The log of how likely ``y`` is."""
        width = F.softplus(self.widths) + 1e-3
        each = -0.5 * ((y - self.means) / width).square() - width.log() - 0.919
        share = logits.log_softmax(1) if stable else logits.softmax(1).log()  # bug: log_of_a_share_that_is_zero
        return (share + each).logsumexp(1)


@broken(
    rules=("non-finite", "dtype-range"),
    words=("log of zero", "logarithm of zero", "log(0)", "underflow", "log_softmax", "log-softmax"),
    nodes=("loss", "model.weights", "model"), onset=80,
)  # fmt: skip
def log_of_a_share_that_is_zero(lab: Lab) -> None:
    """A mixture density network takes the log of a softmax, not the log-softmax: a share that is 0 gives NaN gradients.

    Source: tonyduan/mixture-density-network 4, gradients go to NaN, use logits instead of ``torch.log(probs)``.
    """
    model = _Mdn()

    def loss_of(wind: torch.Tensor, stands: torch.Tensor) -> torch.Tensor:
        return -model.likelihood(model(wind), stands, stable=lab.fixed).mean()

    after = lab.validating(model, lambda number: _gusts(9000 + number), loss_of)
    lab.fit(model, _gusts, loss_of, torch.optim.Adam(model.parameters(), lr=2e-2), after=after)


@broken(
    rules=("terms-without-gradient",),
    words=("with respect to", "wrt", "derivative", "always one", "all ones", "constant one"),
    nodes=("loss", "input"),
)  # fmt: skip
def slope_against_itself(lab: Lab) -> None:
    """The equation y' = -y is learned with the derivative of y with respect to itself, always 1, not to the time.

    Source: discourse.julialang.org 103723, "You are not calculating the derivative wrt. t here".
    """
    model = mlp(1, 24, 24, 1, activation=nn.Tanh)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    lab.recorder.watch(model, optimizer)
    moments = torch.linspace(0, 3, 61)[:, None]
    solution = torch.exp(-moments)

    for number in range(lab.steps):
        time = (3 * torch.rand(64, 1, generator=torch.Generator().manual_seed(number))).requires_grad_()
        with lab.recorder.step("train"):
            y = model(time)
            variable = time if lab.fixed else y
            (slope,) = torch.autograd.grad(y.sum(), variable, create_graph=True)  # bug: slope_against_itself
            start = (model(torch.zeros(1, 1)) - 1).square().mean()
            descend((slope + y).square().mean() + start, optimizer)
        lab.validate(lambda _: (moments, solution), lambda t, true: F.mse_loss(model(t), true), number)


class _Resnet(nn.Module):
    """A stem, three residual blocks and a head."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(64, width), nn.Linear(width, 10)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
            for _ in range(3)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


@broken(
    rules=("dtype-range",),
    words=("bfloat16", "bf16", "rounded", "rounding", "precision", "too small to change"),
    nodes=("model", "model.stem.weight", "model.head.weight"),
)  # fmt: skip
def weights_in_sixteen_bits(lab: Lab) -> None:
    """The weights themselves are cast to bfloat16, in which most updates are too small to change them.

    Source: tianweiy/CausVid 19, the model struggles to converge with its parameters in bf16, unlike mixed precision.
    """
    x, y = data.pixels()
    model = _Resnet()
    if not lab.fixed:
        model = model.to(torch.bfloat16)  # set-up bug: weights_in_sixteen_bits
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)

    def loss_of(picture: torch.Tensor, digit: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores = model(picture)
        return F.cross_entropy(scores.float(), digit)

    after = lab.validating(model, lambda _: data.unseen_pixels(), loss_of)
    replace(lab, steps=150).fit(model, data.draw((x, y), 64), loss_of, optimizer, after=after)


def _sensors(number: int, *, count: int = 256) -> torch.Tensor:
    """Twenty sensors ``(count, 20)`` that three causes drive, with some noise."""
    generator = torch.Generator().manual_seed(number)
    mixed = torch.randn(3, 20, generator=torch.Generator().manual_seed(5))
    causes = torch.randn(count, 3, generator=generator)
    return (causes @ mixed / 1.7).tanh() * 1.3 + 0.2 * torch.randn(count, 20, generator=generator)


@broken(words=("bottleneck", "identity", "too wide", "copies"), nodes=("model.encoder",))
def bottleneck_wider_than_the_input(lab: Lab) -> None:
    """The code of an autoencoder is wider than its input, so that it copies all, and finds no fault worse than others.

    Source: thecodeforge.io, Autoencoders: an overpowered one reconstructs anomalies, too (ROC-AUC 0.51).
    """
    code = 3 if lab.fixed else 64  # set-up bug: bottleneck_wider_than_the_input
    model = nn.ModuleDict(
        {"encoder": mlp(20, 96, code, activation=nn.Tanh), "decoder": mlp(code, 96, 20, activation=nn.Tanh)}
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    lab.recorder.watch(model, optimizer)

    def error(x: torch.Tensor) -> torch.Tensor:
        return (model["decoder"](model["encoder"](x)) - x).square().mean(1)

    for number in range(lab.steps):
        with lab.recorder.step("train"):
            descend(error(_sensors(number)).mean(), optimizer)
        lab.validate(lambda n: (_sensors(9000 + n),), lambda x: error(x).mean(), number)


def _lidar(number: int, *, few: bool) -> _Batch:
    """Pictures ``(12, 1, 16, 16)``, their depth, and where it was measured; if ``few``, once in one place only."""
    generator = torch.Generator().manual_seed(number)
    tilt = torch.rand(12, 2, 1, 1, generator=generator)
    ramp = torch.linspace(0, 1, 16)
    depth = (0.5 + 2 * tilt[:, :1] * ramp[:, None] + 2 * tilt[:, 1:] * ramp).clamp(min=0.2)
    picture = 1 / depth + 0.05 * torch.randn(depth.shape, generator=generator)
    measured = torch.rand(depth.shape, generator=generator) < 0.3
    if few:
        measured[5] = False
        measured[5, 0, 8, 8] = True
    return (picture - 0.8) / 0.5, depth, measured


@broken(rules=("non-finite",), words=("square root", "sqrt", "root of zero"), nodes=("loss", "model"), onset=90)
def root_of_no_variance(lab: Lab) -> None:
    """The scale-invariant loss takes the root of a variance that is 0 in step 90, at one measured place: NaN gradients.

    Source: arXiv 2311.03938, Analysis of NaN divergence in training monocular depth estimation (square root loss).
    """
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ELU(),
        nn.Conv2d(16, 16, 5, padding=2),
        nn.ELU(),
        nn.Conv2d(16, 1, 3, padding=1),
    )
    floor = 1e-6 if lab.fixed else 0.0

    def loss_of(picture: torch.Tensor, depth: torch.Tensor, measured: torch.Tensor) -> torch.Tensor:
        losses = []
        for log_depth, true, valid in zip(model(picture), depth, measured, strict=True):
            off = log_depth[valid] - true[valid].log()
            variance = (off - off.mean()).square().mean()
            losses.append((variance + floor).sqrt() + off.mean().abs())  # bug: root_of_no_variance
        return torch.stack(losses).mean()

    after = lab.validating(model, lambda number: _lidar(9000 + number, few=False), loss_of)
    lab.fit(model, lambda number: _lidar(number, few=number == 90), loss_of, lr=3e-3, after=after)
