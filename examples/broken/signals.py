"""Signals that die or explode on their way through the net: initialisations and activations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab
from stepscope.examples.broken.nets import change, mlp


@broken(rules=("vanishing-gradient",), nodes=("model.0", "model.1", "model.2", "model.0.weight", "model.2.weight"))
def ten_sigmoid_layers(lab: Lab) -> None:
    """Ten layers of sigmoids, each of which makes the gradient at least four times smaller.

    Source: AutoTrainer (ICSE 2021), vanishing gradients.
    """
    activation = nn.ReLU if lab.fixed else nn.Sigmoid  # set-up bug: ten_sigmoid_layers
    model = mlp(64, *[32] * 10, 10, activation=activation)
    if lab.fixed:
        change(model, lambda layer: nn.init.kaiming_normal_(layer.weight, nonlinearity="relu"))
    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y))


@broken(
    rules=("weight-scale", "exploding-gradient", "loss-start"), words=("initial",),
    nodes=("model.0.weight", "model.2.weight", "model.4.weight", "model.0", "model.2"),
)  # fmt: skip
def weights_from_a_unit_normal(lab: Lab) -> None:
    """All weights are drawn from a normal distribution of standard deviation 1, whatever the width.

    Source: AutoTrainer (ICSE 2021), exploding gradients; SageMaker Debugger's PoorWeightInitialization.
    """
    model = mlp(64, 64, 64, 64, 10)
    if not lab.fixed:
        change(model, lambda layer: layer.weight.normal_(0, 1))  # set-up bug: weights_from_a_unit_normal
    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y), lr=1e-3)


@broken(
    rules=("weight-scale", "symmetric-weights"), words=("initial",),
    nodes=("model.0.weight", "model.2.weight", "model.4.weight"),
)  # fmt: skip
def weights_of_zero(lab: Lab) -> None:
    """All weights start at zero, so that at first no hidden unit gets a gradient.

    Source: SageMaker Debugger's AllZero; taxonomy of Humbatova et al. (ICSE 2020), wrong weight initialisation.
    """
    model = mlp(64, 48, 48, 10)
    if not lab.fixed:
        change(model, lambda layer: layer.weight.zero_())  # set-up bug: weights_of_zero
    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y))


@broken(
    rules=("weight-scale", "symmetric-weights"), words=("initial", "symmetr"),
    nodes=("model.2.weight", "model.2", "model.2.bias"),
)  # fmt: skip
def one_layer_constant(lab: Lab) -> None:
    """One hidden layer is initialised with one number, so that its units stay copies of each other.

    Source: UMLAUT (CHI 2021) and the taxonomy of Humbatova et al. (ICSE 2020), wrong weight initialisation.
    """
    model = mlp(64, 48, 48, 10)
    if not lab.fixed:
        for parameter in model[2].parameters():
            nn.init.constant_(parameter, 0.02)  # set-up bug: one_layer_constant
    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y))


@broken(rules=("dead-units",), nodes=("model.3", "model.2", "model.2.bias"))
def relu_units_born_dead(lab: Lab) -> None:
    """A bias of -10 keeps the ReLUs of the second layer at zero for every sample.

    Source: AutoTrainer (ICSE 2021), dying ReLU; SageMaker Debugger's DeadRelu.
    """
    model = mlp(64, 48, 48, 10)
    if not lab.fixed:
        change(model[2], lambda layer: layer.bias.fill_(-10.0))  # set-up bug: relu_units_born_dead
    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y))


@broken(
    rules=("saturated-activation", "weight-scale"), words=("saturat",),
    nodes=("model.1", "model.0", "model.0.weight", "model.3", "model.2.weight"),
)  # fmt: skip
def tanh_saturated_by_its_weights(lab: Lab) -> None:
    """Weights of standard deviation 3 push every tanh to its ends.

    Source: SageMaker Debugger's SaturatedActivation; DeepDiagnosis (ICSE 2022), saturated activation.
    """
    model = mlp(64, 48, 48, 10, activation=nn.Tanh)
    if not lab.fixed:
        change(model, lambda layer: layer.weight.normal_(0, 3))  # set-up bug: tanh_saturated_by_its_weights
    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y))


class Recurrent(nn.Module):
    """A recurrent net with a cell, over ``(batch, time, 4)``."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell, self.head = cell, nn.Linear(24, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = torch.zeros(len(x), 24)
        for moment in x.unbind(1):
            state = self.cell(moment, state)
        return self.head(state)


@broken(
    rules=("exploding-gradient", "weight-scale", "learning-rate"), words=("explod",),
    nodes=("model.cell", "model.cell.weight_hh", "model.cell.weight_ih"),
)  # fmt: skip
def recurrent_weights_too_large(lab: Lab) -> None:
    """The recurrent weights of a ReLU cell make its state twice as large at each of twelve steps of time.

    Source: AutoTrainer (ICSE 2021), exploding gradients in recurrent nets.
    """
    cell = nn.RNNCell(4, 24, nonlinearity="relu")
    if not lab.fixed:
        nn.init.normal_(cell.weight_hh, std=0.6)  # set-up bug: recurrent_weights_too_large
    model = Recurrent(cell)
    lab.fit(model, data.sequences(12, tells=-1), lambda x, y: F.cross_entropy(model(x), y), lr=1e-3)


@broken(
    rules=("vanishing-gradient", "weight-scale"), words=("vanish", "forget"),
    nodes=("model.cell", "model.cell.weight_hh", "model.cell.weight_ih"),
)  # fmt: skip
def recurrent_weights_too_small(lab: Lab) -> None:
    """Recurrent weights close to zero: after six steps of time nothing is left of the first, which is asked for.

    Source: AutoTrainer (ICSE 2021), vanishing gradients in recurrent nets.
    """
    cell = nn.RNNCell(4, 24)
    if lab.fixed:
        nn.init.orthogonal_(cell.weight_hh)
    else:
        nn.init.normal_(cell.weight_hh, std=0.01)  # set-up bug: recurrent_weights_too_small
    model = Recurrent(cell)
    lab.fit(model, data.sequences(6), lambda x, y: F.cross_entropy(model(x), y), lr=5e-3)
