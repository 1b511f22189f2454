"""Mistakes in the settings of the optimizer."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab
from stepscope.examples.broken.nets import mlp

WEIGHTS = ("model.0.weight", "model.2.weight", "model.4.weight")
TOO_FAST = ("learning-rate", "loss-divergence", "exploding-gradient")


def _learn_digits(lab: Lab, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y), optimizer)


@broken(rules=TOO_FAST, words=("learning rate",), nodes=("loss", *WEIGHTS))
def learning_rate_too_high(lab: Lab) -> None:
    """The learning rate of SGD with momentum is a hundred times too high.

    Source: AutoTrainer (ICSE 2021), oscillating loss; DeepLocalize (ICSE 2021), wrong learning rate.
    """
    model = mlp(64, 48, 48, 10)
    lr = 0.05 if lab.fixed else 5.0  # set-up bug: learning_rate_too_high
    _learn_digits(lab, model, torch.optim.SGD(model.parameters(), lr, momentum=0.9))


@broken(rules=TOO_FAST, words=("learning rate",), nodes=("loss", *WEIGHTS))
def adam_with_the_learning_rate_of_sgd(lab: Lab) -> None:
    """Adam is given 0.5, a learning rate that would suit SGD.

    Source: UMLAUT (CHI 2021), learning rate too high; DeepFD (ICSE 2022).
    """
    model = mlp(64, 48, 48, 10)
    lr = 3e-3 if lab.fixed else 0.5  # set-up bug: adam_with_the_learning_rate_of_sgd
    _learn_digits(lab, model, torch.optim.Adam(model.parameters(), lr))


@broken(rules=("learning-rate",), words=("learning rate",), nodes=("loss", *WEIGHTS))
def learning_rate_too_low(lab: Lab) -> None:
    """Adam's learning rate is 1e-7, ten thousand times too low.

    Source: AutoTrainer (ICSE 2021), slow convergence; UMLAUT (CHI 2021), learning rate too low.
    """
    model = mlp(64, 48, 48, 10)
    lr = 3e-3 if lab.fixed else 1e-7  # set-up bug: learning_rate_too_low
    _learn_digits(lab, model, torch.optim.Adam(model.parameters(), lr))


@broken(rules=("shrinking-weights",), words=("weight decay",), nodes=WEIGHTS)
def weight_decay_too_strong(lab: Lab) -> None:
    """A weight decay of 0.5 pulls all weights to zero faster than they learn.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong regularisation.
    """
    model = mlp(64, 48, 48, 10)
    decay = 1e-4 if lab.fixed else 0.5  # set-up bug: weight_decay_too_strong
    _learn_digits(lab, model, torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=decay))


@broken(rules=("adam-epsilon",), words=("eps",), nodes=WEIGHTS)
def eps_of_one(lab: Lab) -> None:
    """Adam's eps is 1.0, as a guide for another net advised, far above the root of its second moment.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong settings of the optimizer.
    """
    model = mlp(64, 48, 48, 10)
    eps = 1e-8 if lab.fixed else 1.0  # set-up bug: eps_of_one
    _learn_digits(lab, model, torch.optim.Adam(model.parameters(), 1e-3, eps=eps))


@broken(rules=(*TOO_FAST, "loss-spike", "oscillating-loss"), words=("momentum", "oscill"), nodes=("loss", *WEIGHTS))
def momentum_close_to_one(lab: Lab) -> None:
    """SGD has a momentum of 0.999 at a learning rate that suits 0.9: steps become a hundred times too large.

    Source: AutoTrainer (ICSE 2021), oscillating loss.
    """
    model = mlp(64, 48, 48, 10)
    momentum = 0.9 if lab.fixed else 0.999  # set-up bug: momentum_close_to_one
    _learn_digits(lab, model, torch.optim.SGD(model.parameters(), 0.05, momentum=momentum))


@broken(rules=(*TOO_FAST, "loss-spike"), words=("learning rate", "summed"), nodes=("loss", *WEIGHTS))
def loss_summed_over_the_batch(lab: Lab) -> None:
    """The loss is summed instead of averaged, which makes every gradient 64 times as large.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong loss function calculation.
    """
    model = mlp(64, 48, 48, 10)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), y, reduction="mean" if lab.fixed else "sum")  # bug: loss_summed_over_the_batch

    lab.fit(model, data.draw(data.pixels()), loss_of, torch.optim.SGD(model.parameters(), 0.1))


@broken(rules=("optimizer-settings", *TOO_FAST), words=("betas",), nodes=("loss", *WEIGHTS))
def betas_the_wrong_way_round(lab: Lab) -> None:
    """Adam's two betas are swapped: gradients are averaged over a thousand steps, and their squares over ten.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong settings of the optimizer.
    """
    model = mlp(64, 48, 48, 10)
    betas = (0.9, 0.999) if lab.fixed else (0.999, 0.9)  # set-up bug: betas_the_wrong_way_round
    _learn_digits(lab, model, torch.optim.Adam(model.parameters(), 3e-3, betas=betas))
