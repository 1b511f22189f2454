"""Mistakes in how blocks are put together: shared, without activations, normalised away."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab


class Block(nn.Module):
    """A residual block of ``(batch, 32)``."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.tanh(self.mix(x))


@broken(rules=("shared-modules",), words=("same module", "share"), nodes=("model.1.0", "model.1", "model.1.0.mix"))
def one_block_four_times(lab: Lab) -> None:
    """A list of blocks is made by multiplication, ``[Block()] * 4``: all four are one and the same.

    Source: PyTorch forum, modules of a list that share their weights; a classic of Python lists.
    """
    blocks = [Block() for _ in range(4)] if lab.fixed else [Block()] * 4  # set-up bug: one_block_four_times
    model = nn.Sequential(nn.Linear(64, 32), nn.Sequential(*blocks), nn.Linear(32, 10))
    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y), lr=1e-3)


@broken(
    rules=("missing-nonlinearity",), words=("no activation",),
    nodes=("model.0", "model.1", "model.3", "model.4", "model.6"),
)  # fmt: skip
def normalised_but_not_activated(lab: Lab) -> None:
    """Convolutions are followed by batch normalisation, and by no activation: all of them are one.

    Source: AutoTrainer (Zhang et al., ICSE 2021) and the taxonomy of Humbatova et al. (ICSE 2020), missing activation.
    """
    activation = nn.ReLU if lab.fixed else nn.Identity  # set-up bug: normalised_but_not_activated
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3), nn.BatchNorm2d(12), activation(),
        nn.Conv2d(12, 16, 3), nn.BatchNorm2d(16), activation(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip
    lab.fit(model, data.draw(data.images()), lambda x, y: F.cross_entropy(model(x), y), lr=5e-3)


@broken(rules=("constant-output",), words=("single numbers",), nodes=("model.3", "model.2", "model.5"))
def groups_of_one_channel(lab: Lab) -> None:
    """Each channel is a group of its own, and is one number after the pooling, whose mean is itself: zero is left.

    Source: PyTorch forum, normalisation of 1 x 1 maps gives zeros; the error that instance normalisation raises then.
    """
    groups = 4 if lab.fixed else 16  # set-up bug: groups_of_one_channel
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.GroupNorm(groups, 16), nn.Flatten(),
        nn.Linear(16, 10),
    )  # fmt: skip
    lab.fit(model, data.draw(data.images()), lambda x, y: F.cross_entropy(model(x), y), lr=1e-2)
