"""Layers that behave differently in training and evaluation: dropout and batch normalisation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab


def _net(dropout: float = 0.3, momentum: float = 0.1) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(64, 64), nn.BatchNorm1d(64, momentum=momentum), nn.ReLU(), nn.Dropout(dropout), nn.Linear(64, 10)
    )


@broken(rules=("small-batch-norm",), nodes=("model.1", "model.0"))
def batch_norm_over_two_samples(lab: Lab) -> None:
    """Batch normalisation over batches of two samples sees little but noise.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong batch size; SageMaker Debugger's BatchSize.
    """
    model = nn.Sequential(nn.Linear(64, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 10))
    batch = 64 if lab.fixed else 2  # set-up bug: batch_norm_over_two_samples
    lab.fit(model, data.draw(data.pixels(), batch), lambda x, y: F.cross_entropy(model(x), y))


@broken(
    rules=("batch-norm-mode", "dropout-mode"),
    words=("eval mode", "evaluation mode", "model.train()", "running statistics", "eval()"),
    nodes=("model.1", "model.3"), onset=30,
)  # fmt: skip
def eval_mode_left_on(lab: Lab) -> None:
    """model.eval() is called for the first validation at step 30, and model.train() never again.

    Source: taxonomy of Humbatova et al. (ICSE 2020), missing API call; UMLAUT (CHI 2021).
    """
    model = _net()
    unseen = data.draw(data.unseen_pixels())

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), y)

    def after(number: int) -> None:
        model.eval()
        lab.validate(unseen, loss_of, number)
        model.train(lab.fixed or number < 29)  # set-up bug: eval_mode_left_on

    lab.fit(model, data.draw(data.pixels()), loss_of, after=after)


@broken(
    rules=("dropout-mode", "batch-norm-mode"),
    words=("model.eval()", "training mode"),
    nodes=("model.3", "model.1"),
    onset=30,
)
def validation_in_training_mode(lab: Lab) -> None:
    """model.eval() is missing: dropout drops units while the net is validated.

    Source: taxonomy of Humbatova et al. (ICSE 2020), missing API call; TrainCheck (OSDI 2025), mode of evaluation.
    """
    model = _net()
    unseen = data.draw(data.unseen_pixels())

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), y)

    def after(number: int) -> None:
        model.train(not lab.fixed)  # set-up bug: validation_in_training_mode
        lab.validate(unseen, loss_of, number)
        model.train()

    lab.fit(model, data.draw(data.pixels()), loss_of, after=after)


@broken(rules=("dropout-mode",), words=("dropout", "drops"), nodes=("model.3",))
def keep_probability_given_to_dropout(lab: Lab) -> None:
    """Dropout is given the share of units to keep, 0.95, and drops that many.

    Source: UMLAUT (CHI 2021), dropout rate too high; taxonomy of Humbatova et al. (ICSE 2020), wrong regularisation.
    """
    model = _net(dropout=0.05 if lab.fixed else 0.95)  # set-up bug: keep_probability_given_to_dropout
    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y))


@broken(
    rules=("batch-norm-mode",), words=("running",),
    nodes=("model.1", "model.1.running_mean", "model.1.running_var"),
)  # fmt: skip
def batch_norm_with_the_other_momentum(lab: Lab) -> None:
    """The momentum of the batch normalisation is 0.0001: its running statistics never follow, and validation fails.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong layer settings; frameworks define momentum both ways.
    """
    model = _net(dropout=0.0, momentum=0.1 if lab.fixed else 1e-4)  # set-up bug: batch_norm_with_the_other_momentum
    unseen = data.draw(data.unseen_pixels())

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), y)

    lab.fit(model, data.draw(data.pixels()), loss_of, after=lab.validating(model, unseen, loss_of))
