"""Two nets that train against each other."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Step


def adversarial_step(
    step: Step, generator: nn.Module, critic: nn.Module, optimizers: Mapping[str, torch.optim.Optimizer], apart: float
) -> None:
    """One step of the critic, then one of the generator; the real points lie ``apart`` from the middle."""
    real = torch.randn(64, 2) * 0.5 + torch.tensor([apart, -apart])
    fake = generator(torch.randn(64, 4))
    critic_loss = F.softplus(-critic(real)).mean() + F.softplus(critic(fake.detach())).mean()
    step.record("critic loss", critic_loss, type="loss")
    optimizers["critic"].zero_grad()
    with step.loss_group("critic"):
        critic_loss.backward()
    optimizers["critic"].step()
    generator_loss = F.softplus(-critic(fake)).mean()
    step.record("generator loss", generator_loss, type="loss")
    optimizers["generator"].zero_grad()
    with step.loss_group("generator"):
        generator_loss.backward()
    optimizers["generator"].step()
