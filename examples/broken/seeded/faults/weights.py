"""Faults of the weights with which a training begins."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from stepscope.examples.broken.seeded.fault import fault
from stepscope.examples.broken.seeded.training import Training


def _change_weights(training: Training, change: Callable[[torch.Tensor], object]) -> tuple[str, ...] | None:
    """Do something to each matrix of weights."""
    found = training.weights()
    with torch.no_grad():
        for _, parameter in found:
            change(parameter)
    return tuple(name for name, _ in found) or None


def _change_a_layer(training: Training, change: Callable[[torch.Tensor], object]) -> tuple[str, ...] | None:
    """Do something to the matrices of one layer, chosen at random."""
    layers = training.rehearsal().layers
    if not layers:
        return None
    node = training.random.choice(layers)
    with torch.no_grad():
        for parameter in training.module(node).parameters():
            if parameter.dim() >= 2:
                change(parameter)
    return training.with_parameters(node)


@fault(rules=("weight-scale",))
def weights_all_zero(training: Training) -> tuple[str, ...] | None:
    """All weights are zero when the training begins.

    Source: DeepCrime (ISSTA 2021), operator WCI (weight initialisation); Taxonomy (ICSE 2020), wrong initialisation.
    """
    return _change_weights(training, nn.init.zeros_)


@fault(rules=("weight-scale",))
def weights_all_equal(training: Training) -> tuple[str, ...] | None:
    """All weights are the same number when the training begins.

    Source: DeepCrime (ISSTA 2021), operator WCI; SageMaker Debugger, rule PoorWeightInitialization.
    """
    return _change_weights(training, lambda weight: nn.init.constant_(weight, 0.05))


@fault(rules=("weight-scale",))
def weights_too_large(training: Training) -> tuple[str, ...] | None:
    """All weights are drawn from a normal distribution of standard deviation 1, however large the layer.

    Source: DeepCrime (ISSTA 2021), operator WCI; AutoTrainer (ICSE 2021), exploding gradient.
    """
    return _change_weights(training, nn.init.normal_)


@fault(rules=("weight-scale",))
def weights_too_small(training: Training) -> tuple[str, ...] | None:
    """All weights begin so small that hardly any signal comes through.

    Source: AutoTrainer (ICSE 2021), vanishing gradient; SageMaker Debugger, rule PoorWeightInitialization.
    """
    return _change_weights(training, lambda weight: nn.init.normal_(weight, std=1e-5))


@fault(rules=("weight-scale",))
def a_layer_far_too_large(training: Training) -> tuple[str, ...] | None:
    """The weights of one layer are a hundred times too large.

    Source: DeepMutation (Ma et al., ISSRE 2018), operator GF (gaussian fuzzing); SageMaker Debugger, ExplodingTensor.
    """
    return _change_a_layer(training, lambda weight: weight.mul_(100))


@fault(rules=("weight-scale", "non-finite"))
def a_layer_never_filled(training: Training) -> tuple[str, ...] | None:
    """The weights of one layer were made by torch.empty and never filled: they are what was in the memory.

    Source: PyTorch's documentation of torch.empty ("uninitialized data") and forum, NaN from torch.Tensor(n, m).
    """
    generator = torch.Generator().manual_seed(training.random.randrange(2**31))

    def leave(weight: torch.Tensor) -> None:
        bits = torch.randint(-(2**31), 2**31, weight.shape, generator=generator)
        weight.copy_(bits.to(torch.int32).view(torch.float32))

    return _change_a_layer(training, leave)


@fault(rules=("dead-units",))
def biases_strongly_negative(training: Training) -> tuple[str, ...] | None:
    """The biases before a ReLU begin at -10, so that its units are born dead.

    Source: AutoTrainer (ICSE 2021), dying ReLU; SageMaker Debugger, rule DeadRelu.
    """
    rehearsal = training.rehearsal()
    biases = [f"{node}.bias" for node in rehearsal.layers[:-1]]
    found = [(name, parameter) for name, parameter in training.parameters() if name in biases]
    if "relu" not in rehearsal.functions or not found:
        return None
    with torch.no_grad():
        for _, parameter in found:
            parameter.fill_(-10)
    return tuple(name for name, _ in found)


@fault(rules=("frozen-parameters",), words=("frozen",))
def layers_frozen(training: Training) -> tuple[str, ...] | None:
    """All layers but the last were frozen, although they have learned nothing yet.

    Source: Taxonomy (ICSE 2020), training process; TrainCheck (OSDI 2025), parameters that do not change.
    """
    layers = training.rehearsal().layers
    frozen = [item for item in training.parameters() if not item[0].startswith(f"{layers[-1]}.")] if layers else []
    if not frozen or len(frozen) == len(training.parameters()):
        return None
    for _, parameter in frozen:
        parameter.requires_grad_(False)
    return tuple(name for name, _ in frozen)
