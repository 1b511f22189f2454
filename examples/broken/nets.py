"""Small nets that several runs use."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import nn


def mlp(*sizes: int, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers with an activation between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


def change(model: nn.Module, what: Callable[[nn.Linear], object]) -> None:
    """Do something to every linear layer, without gradients."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                what(module)
