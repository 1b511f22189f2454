"""Mistakes in what nets learn without labels: codes that collapse, rivals that win, pictures out of reach."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import mlp


class Siamese(nn.Module):
    """An encoder with batch normalisation, and a predictor of one view's code from another's."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 16))
        self.predictor = mlp(16, 32, 16)


@broken(
    rules=("representation-collapse", "constant-output"), words=("collaps", "same for all samples"),
    nodes=("model.encoder", "model.encoder.3", "model.predictor", "model.predictor.2", "loss"),
)  # fmt: skip
def siamese_without_stop_gradient(lab: Lab) -> None:
    """Two views shall have similar codes, and no gradient is stopped: all images get the same code.

    Source: Chen and He (2021), SimSiam; the question of SimSiam issue 39 and simsiam issue 7.
    """
    model = Siamese()

    def likeness(prediction: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        code = code.detach() if lab.fixed else code  # bug: siamese_without_stop_gradient
        return F.cosine_similarity(prediction, code).mean()

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        one, two = (model.encoder(x + 0.4 * torch.randn_like(x)) for _ in range(2))
        return -(likeness(model.predictor(one), two) + likeness(model.predictor(two), one)) / 2

    lab.fit(model, data.draw(data.pixels()), loss_of, torch.optim.SGD(model.parameters(), 0.02, momentum=0.9))


def _contrast(model: nn.Module, x: torch.Tensor, temperature: float) -> torch.Tensor:
    one, two = (F.normalize(model(x + 0.3 * torch.randn_like(x)), dim=1) for _ in range(2))
    return F.cross_entropy(one @ two.T / temperature, torch.arange(len(x)))


@broken(words=("temperature", "logits"), nodes=("loss", "model", "model.2"))
def temperature_times_instead_of_over(lab: Lab) -> None:
    """A contrastive loss multiplies the similarities by the temperature, 0.05, instead of dividing by it.

    Source: ContrastMask issue 4 and Lafite issue 25, where the temperature is left out or misplaced.
    """
    model = mlp(64, 64, 32)

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return _contrast(model, x, 0.2 if lab.fixed else 1 / 0.05)  # bug: temperature_times_instead_of_over

    lab.fit(model, data.draw(data.pixels()), loss_of, lr=2e-3)


@broken(rules=("duplicate-samples",), words=("duplicate", "same sample", "several times"), nodes=("input",))
def copies_among_the_negatives(lab: Lab) -> None:
    """The loader repeats each image sixteen times in a batch, whose copies a contrastive loss then pushes apart.

    Source: Chuang et al. (2020), false negatives; UMLAUT (CHI 2021) and Humbatova et al. (ICSE 2020), repeated data.
    """
    model = mlp(64, 64, 32)
    batches = data.draw(data.pixels())

    def repeated(number: int) -> tuple[torch.Tensor, ...]:
        x, y = batches(number)
        return (
            (x, y) if lab.fixed else (x[:4].repeat(16, 1), y[:4].repeat(16))
        )  # set-up bug: copies_among_the_negatives

    lab.fit(model, repeated, lambda x, _: _contrast(model, x, 0.2), lr=2e-3)


class Sampled(nn.Module):
    """A variational autoencoder that draws its code from a distribution."""

    def __init__(self, *, differentiable: bool) -> None:
        super().__init__()
        self.encoder, self.decoder = mlp(64, 48, 16), mlp(8, 48, 64)
        self.differentiable = differentiable

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_scale = self.encoder(x).chunk(2, dim=1)
        code = torch.distributions.Normal(mean, log_scale.exp(), validate_args=False)
        drawn = code.rsample() if self.differentiable else code.sample()  # bug: code_drawn_without_gradient
        divergence = (mean**2 + (2 * log_scale).exp() - 2 * log_scale - 1).sum(1).mean() / 2
        return self.decoder(drawn), divergence


@broken(
    rules=("gradient-cut", "posterior-collapse"), words=("rsample", "reparamet", "posterior", "is cut"),
    nodes=("model.encoder", "model.decoder", "model.encoder.2", "model.decoder.0", "model"),
)  # fmt: skip
def code_drawn_without_gradient(lab: Lab) -> None:
    """The code is drawn by ``sample`` instead of ``rsample``: the encoder never hears how good its picture was.

    Source: deepdow pull request 106, s-vae-pytorch issue 9, PyTorch-VAE issue 13.
    """
    model = Sampled(differentiable=lab.fixed)

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        made, divergence = model(x)
        return F.mse_loss(made, x, reduction="sum") / len(x) + divergence

    lab.fit(model, data.draw(data.pixels()), loss_of)


@broken(
    rules=("unreachable-targets",), words=("can never", "cannot reach", "out of reach"),
    nodes=("model.5", "model.4", "model", "target", "loss"),
)  # fmt: skip
def sigmoid_for_standardised_pictures(lab: Lab) -> None:
    """An autoencoder ends with a sigmoid, while the pictures were standardised: half of their pixels are negative.

    Source: DeepFD (ICSE 2022) and Humbatova et al. (ICSE 2020), wrong activation of the output; a forum classic.
    """
    layers = [nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 64)]
    if not lab.fixed:
        layers.append(nn.Sigmoid())
    model = nn.Sequential(*layers)
    lab.fit(
        model, data.draw(data.pixels()), lambda x, _: F.mse_loss(model(x), x)  # bug: sigmoid_for_standardised_pictures
    )  # fmt: skip


def _rivals(lab: Lab, *, rates: tuple[float, float] = (5e-3, 2e-2), noisy: bool = True) -> None:
    """A generator of points on a circle, and its critic."""
    generator, critic = mlp(4, 48, 48, 2), mlp(2, 48, 48, 1, activation=lambda: nn.LeakyReLU(0.2))
    optimizers = {
        "generator": torch.optim.Adam(generator.parameters(), rates[0], betas=(0.5, 0.99)),
        "critic": torch.optim.Adam(critic.parameters(), rates[1], betas=(0.5, 0.99)),
    }
    lab.recorder.watch({"generator": generator, "critic": critic}, optimizers)
    for number in range(lab.steps):
        (real,) = data.circles(number)
        noise = torch.randn(len(real), 4) if noisy else torch.zeros(len(real), 4)
        with lab.recorder.step("train") as step:
            fake = generator(noise)  # bug: noise_left_out
            with step.loss_group("critic"):
                critic_loss = F.softplus(-critic(real)).mean() + F.softplus(critic(fake.detach())).mean()
                descend(critic_loss, optimizers["critic"])
            generator_loss = F.softplus(-critic(fake)).mean()
            with step.loss_group("generator"):
                descend(generator_loss, optimizers["generator"])


@broken(
    rules=("mode-collapse", "constant-data", "ignored-input", "constant-output"), words=("collaps",),
    nodes=("generator", "generator.0", "generator.2", "generator.4"),
)  # fmt: skip
def noise_left_out(lab: Lab) -> None:
    """The generator is given zeros instead of noise, and makes one point only.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong input; denchmark, generators that make one sample.
    """
    _rivals(lab, noisy=lab.fixed)


@broken(
    rules=("gan-balance", "learning-rate"), words=("critic", "has won"),
    nodes=(
        "critic", "critic.4", "generator", "generator.0.weight", "generator.2.weight", "generator.4.weight", "loss",
    ),
)  # fmt: skip
def generator_too_slow_for_its_critic(lab: Lab) -> None:
    """The generator's learning rate is a thousandth of what it should be, so that the critic wins every time.

    Source: Heusel et al. (2017), two time scales; taxonomy of Humbatova et al. (ICSE 2020), wrong learning rate.
    """
    rates = (5e-3, 2e-2) if lab.fixed else (5e-6, 2e-2)
    _rivals(lab, rates=rates)  # set-up bug: generator_too_slow_for_its_critic


class Cosines(nn.Module):
    """A cosine classifier of digits."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.body, self.classes, self.scale = mlp(64, 48, 16), nn.Parameter(torch.randn(10, 16)), scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        cosines = F.linear(F.normalize(self.body(x)), F.normalize(self.classes))
        return self.scale * cosines


@broken(
    rules=("flat-scores", "unreachable-targets"), words=("scale", "temperature"),
    nodes=("model", "loss", "model.classes", "model.body"),
)  # fmt: skip
def cosines_without_a_scale(lab: Lab) -> None:
    """A classifier gives cosines to the cross-entropy as they are, whose softmax can never be sure of anything.

    Source: Wang et al. (2017), NormFace, on why normalised features need a scale; taxonomy of Humbatova et al. (2020).
    """
    model = Cosines(12.0 if lab.fixed else 0.3)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), y)  # bug: cosines_without_a_scale

    lab.fit(model, data.draw(data.pixels()), loss_of)
