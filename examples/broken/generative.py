"""Mistakes in nets that make something: autoencoders with a code of chance, and pairs of rivals."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab
from stepscope.examples.broken.nets import mlp


class Variational(nn.Module):
    """A variational autoencoder of digits: ``(batch, 64)`` to its reconstruction and the divergence of its code."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = mlp(64, 48, 16), mlp(8, 48, 64)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        code = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1).mean()
        return self.decoder(code), divergence


@broken(
    rules=("unbounded-loss", "loss-divergence"), words=("negative", "below zero", "unbounded", "without bound"),
    nodes=("loss", "model.encoder"),
)  # fmt: skip
def divergence_with_the_wrong_sign(lab: Lab) -> None:
    """The divergence of the code is subtracted from the loss instead of added, which has no minimum.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong loss function calculation.
    """
    model = Variational()

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        made, divergence = model(x)
        error = F.mse_loss(made, x, reduction="sum") / len(x)
        return error + divergence if lab.fixed else error - divergence  # bug: divergence_with_the_wrong_sign

    lab.fit(model, data.draw(data.pixels()), loss_of)


@broken(
    rules=("posterior-collapse", "ignored-input", "constant-output"), words=("posterior", "collaps"),
    nodes=("model.encoder", "model.decoder", "model.encoder.2", "model.decoder.0"),
)  # fmt: skip
def posterior_collapse(lab: Lab) -> None:
    """The divergence weighs 200 times too much: the code says nothing, and the decoder gives every image the same.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong loss function calculation; Bowman et al. (2016).
    """
    model = Variational()
    weight = 1.0 if lab.fixed else 200.0

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        made, divergence = model(x)
        return F.mse_loss(made, x, reduction="sum") / len(x) + weight * divergence  # bug: posterior_collapse

    lab.fit(model, data.draw(data.pixels()), loss_of)


def _rivals(lab: Lab, *, detach_for_both: bool, share_optimizer: bool) -> None:
    """A generator of points on a circle, and a critic."""
    generator, critic = mlp(4, 32, 2), mlp(2, 32, 1, activation=lambda: nn.LeakyReLU(0.2))
    both = [*generator.parameters(), *critic.parameters()]
    optimizers = {
        "generator": torch.optim.Adam(generator.parameters(), 1e-3, betas=(0.5, 0.999)),
        "critic": torch.optim.Adam(both if share_optimizer else critic.parameters(), 1e-3, betas=(0.5, 0.999)),
    }
    lab.recorder.watch({"generator": generator, "critic": critic}, optimizers)
    for number in range(lab.steps):
        (real,) = data.circles(number)
        with lab.recorder.step("train") as step:
            fake = generator(torch.randn(len(real), 4))
            shown = fake if share_optimizer else fake.detach()
            critic_loss = F.softplus(-critic(real)).mean() + F.softplus(critic(shown)).mean()
            optimizers["critic"].zero_grad()
            with step.loss_group("critic"):
                critic_loss.backward(retain_graph=share_optimizer)
            optimizers["critic"].step()
            if share_optimizer:
                fake = generator(torch.randn(len(real), 4))
            given = fake.detach() if detach_for_both else fake  # bug: generator_judged_on_a_detached_copy
            generator_loss = F.softplus(-critic(given)).mean()
            optimizers["generator"].zero_grad()
            with step.loss_group("generator"):
                generator_loss.backward()
            optimizers["generator"].step()


@broken(
    rules=("gradient-cut", "no-gradient", "unchanged-parameters"),
    nodes=("generator", "generator.0.weight", "generator.2.weight", "critic"),
)  # fmt: skip
def generator_judged_on_a_detached_copy(lab: Lab) -> None:
    """The copy that was detached for the critic's loss is used for the generator's too, which then never trains.

    Source: TrainCheck (OSDI 2025), parameters that are never updated; a classic mistake in adversarial training.
    """
    _rivals(lab, detach_for_both=not lab.fixed, share_optimizer=False)


@broken(
    rules=("trained-twice",), words=("two optimizers", "several optimizers", "both optimizers"),
    nodes=("generator.0.weight", "generator.2.weight", "generator.0.bias", "generator.2.bias", "generator"),
)  # fmt: skip
def critic_optimizer_holds_the_generator(lab: Lab) -> None:
    """The critic's optimizer was given the generator's parameters too, and trains them to be recognised.

    Source: TrainCheck (OSDI 2025), an optimizer with the wrong parameters.
    """
    _rivals(
        lab, detach_for_both=False, share_optimizer=not lab.fixed
    )  # set-up bug: critic_optimizer_holds_the_generator
