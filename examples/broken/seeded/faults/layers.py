"""Faults of the model's layers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from stepscope.examples.broken.seeded.fault import fault
from stepscope.examples.broken.seeded.training import Training

ACTIVATIONS = (nn.ReLU, nn.GELU, nn.Tanh, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.Sigmoid)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)


def change_a_hidden_layer(training: Training, change: Callable[[torch.Tensor], torch.Tensor]) -> tuple[str, ...] | None:
    """Let one layer before the last, chosen at random, return something else."""
    hidden = training.rehearsal().hidden()
    if not hidden:
        return None
    node = training.random.choice(hidden)
    training.change_output(node, change)
    return (node,)


def _replace_all(training: Training, types: tuple[type[nn.Module], ...], by: Callable[[], nn.Module]) -> list[str]:
    nodes = [node for node, _ in training.modules(*types)]
    for node in nodes:
        training.replace(node, by())
    return nodes


@fault(rules=("missing-nonlinearity",))
def activations_removed(training: Training) -> tuple[str, ...] | None:
    """No layer has an activation behind it.

    Source: DeepCrime (Humbatova, Jahangirova, Tonella, ISSTA 2021), operator ARM.
    """
    return tuple(_replace_all(training, ACTIVATIONS, nn.Identity)) or None


@fault(rules=("saturated-activation", "vanishing-gradient", "hidden-sigmoid"), words=("sigmoid",))
def activations_changed_to_sigmoid(training: Training) -> tuple[str, ...] | None:
    """All of several activations, one behind the other, are sigmoids.

    Source: DeepCrime (ISSTA 2021), operator ACH; AutoTrainer (ICSE 2021), vanishing gradient.
    """
    if len(training.modules(*ACTIVATIONS)) < 2:
        return None
    return tuple(_replace_all(training, ACTIVATIONS, nn.Sigmoid))


@fault(rules=("hidden-softmax",), words=("softmax",))
def softmax_within_the_model(training: Training) -> tuple[str, ...] | None:
    """A hidden activation is a softmax.

    Source: DeepCrime (ISSTA 2021), operator ACH (activation function); Taxonomy (ICSE 2020), wrong activation.
    """
    found = [node for node, _ in training.modules(*ACTIVATIONS)]
    if not found:
        return None
    node = training.random.choice(found)
    training.replace(node, nn.Softmax(dim=-1))
    return (node,)


@fault(rules=("activation-before-loss", "unreachable-targets"))
def activation_behind_the_output(training: Training) -> tuple[str, ...] | None:
    """An activation that is meant for hidden layers follows the last one, too.

    Source: DeepLocalize (Wardat et al., ICSE 2021), activation of the last layer; DeepCrime, operator AAL.
    """
    rehearsal = training.rehearsal()
    node = rehearsal.layers[-1] if rehearsal.layers else None
    if node is None or not isinstance(rehearsal.outputs[node], torch.Tensor) or rehearsal.is_a_regression():
        return None
    training.change_output(node, training.random.choice((torch.relu, torch.sigmoid, torch.tanh)))
    return tuple(dict.fromkeys((node, *rehearsal.ends())))


def _change_prediction(training: Training, change: Callable[[torch.Tensor], torch.Tensor]) -> tuple[str, ...] | None:
    """Change what the model of a regression returns, where that is what its loss is given."""
    rehearsal = training.rehearsal()
    node = rehearsal.prediction()
    if node is None or not rehearsal.is_a_regression():
        return None
    training.change_output(node, change)
    return (*rehearsal.ends(), "loss")


@fault(rules=("unreachable-targets",))
def relu_on_a_regression(training: Training) -> tuple[str, ...] | None:
    """What a regression predicts is cut off below zero.

    Source: DeepLocalize (ICSE 2021), activation of the output of a regression; DeepDiagnosis (ICSE 2022).
    """
    return _change_prediction(training, torch.relu)


@fault(rules=("unreachable-targets",))
def sigmoid_on_a_regression(training: Training) -> tuple[str, ...] | None:
    """What a regression predicts is squeezed between 0 and 1.

    Source: DeepDiagnosis (ICSE 2022), output activation and range of the labels do not fit.
    """
    return _change_prediction(training, torch.sigmoid)


@fault(words=("normalisation is missing",))
def normalisation_removed(training: Training) -> tuple[str, ...] | None:
    """The layers that normalise are missing.

    Source: DeepMutation (Ma et al., ISSRE 2018), operator LR (layer removal); Taxonomy (ICSE 2020), missing layer.
    """
    if training.modules(nn.TransformerEncoderLayer):  # it asks its norms for their eps when it evaluates
        return None
    return tuple(_replace_all(training, NORMS, nn.Identity)) or None


@fault(rules=("no-gradient", "dead-units"), words=("zero everywhere",))
def layer_masked_away(training: Training) -> tuple[str, ...] | None:
    """What a layer returns is multiplied by a mask that is zero everywhere.

    Source: DeepMutation (Ma et al., ISSRE 2018), neuron effect block; SageMaker Debugger, rule AllZero.
    """
    return change_a_hidden_layer(training, lambda x: x * torch.zeros_like(x))


@fault(rules=("vanishing-gradient", "residual-balance"))
def layer_scaled_away(training: Training) -> tuple[str, ...] | None:
    """What a layer returns is divided by a hundred thousand, so that what is behind it sees its biases alone.

    Source: MuFF (arXiv 2501.09846, 2025), neuron inhibitor; AutoTrainer (ICSE 2021), vanishing gradient.
    """
    return change_a_hidden_layer(training, lambda x: x / 1e5)


@fault(rules=("batch-leak",))
def batch_mixed_by_a_view(training: Training) -> tuple[str, ...] | None:
    """A view takes the place of a permutation, so that samples of the batch are mixed.

    Source: Karpathy's list of common mistakes (2018), view and permute are not the same.
    """
    rehearsal = training.rehearsal()
    deep = [node for node in rehearsal.hidden() if _is_mixed_by_a_view(rehearsal.outputs[node])]
    if not deep:
        return None
    node = training.random.choice(deep)
    training.change_output(node, lambda x: x.transpose(0, 1).reshape(x.shape))
    return (node,)


def _is_mixed_by_a_view(output: torch.Tensor) -> bool:
    return output.dim() >= 3 and output.shape[0] > 1 and output.shape[1] > 1
