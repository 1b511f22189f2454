"""Mistakes that only the validation shows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Batches, Lab
from stepscope.examples.broken.nets import mlp


def _learn_digits(lab: Lab, model: nn.Module, unseen: Batches) -> None:
    """Train, and validate in evaluation mode."""

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), y)

    lab.fit(model, data.draw(data.pixels()), loss_of, after=lab.validating(model, unseen, loss_of))


@broken(
    rules=("evaluation-data",), words=("validation input", "than in training", "differ between"),
    nodes=("input", "model.0"), onset=30,
)  # fmt: skip
def validation_not_normalised(lab: Lab) -> None:
    """Only the training images are standardised; those of the validation come as they are, from 0 to 255.

    Source: RT-DETR issue 312, the_well issue 68, fastai issue 3281.
    """
    x, y = data.unseen_pixels()
    if not lab.fixed:
        x = (x - x.min()) / (x.max() - x.min()) * 255  # set-up bug: validation_not_normalised
    _learn_digits(lab, mlp(64, 48, 10), data.draw((x, y)))


class Dropping(nn.Module):
    """A net with dropout as a function, which may not be told when it is evaluated."""

    def __init__(self, *, told: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 96), nn.Linear(96, 10)
        self.told = told

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = F.relu(self.first(x))
        training = self.training or not self.told
        hidden = F.dropout(hidden, 0.5, training=training)  # bug: dropout_not_told_of_evaluation
        return self.last(hidden)


@broken(rules=("dropout-mode",), words=("dropout",), nodes=("model", "model.first", "model.last"), onset=30)
def dropout_not_told_of_evaluation(lab: Lab) -> None:
    """``F.dropout`` is called without ``training=self.training``, and drops units in evaluation mode, too.

    Source: pytorch/pytorch issue 26338, SimpleNet issue 2, Tacotron2-PyTorch issue 8.
    """
    _learn_digits(lab, Dropping(told=lab.fixed), data.draw(data.unseen_pixels()))
