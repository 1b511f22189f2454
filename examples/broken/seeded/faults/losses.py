"""Faults of the loss: what it is given, what it does, and what is done with it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F

from stepscope.examples.broken.seeded.fault import fault
from stepscope.examples.broken.seeded.faults.optimising import everything
from stepscope.examples.broken.seeded.rehearsal import Rehearsal
from stepscope.examples.broken.seeded.training import Training

Loss = Callable[..., torch.Tensor]


def _classifies_rows(prediction: torch.Tensor, target: torch.Tensor) -> bool:
    return prediction.dim() == 2 and len(prediction) > 1 and target.dim() == 1 and not target.is_floating_point()


def _is_compared(prediction: torch.Tensor, target: torch.Tensor) -> bool:
    return prediction.shape == target.shape and prediction.dim() >= 1 and prediction.requires_grad


def _nodes(rehearsal: Rehearsal) -> tuple[str, ...]:
    return (*rehearsal.ends(), "loss")


def _patch(
    training: Training,
    name: str,
    other: Callable[[Loss], Loss],
    fits: Callable[[torch.Tensor, torch.Tensor], bool] = _is_compared,
) -> tuple[str, ...] | None:
    """Put another function in the place of a loss function, if the training calls it with what fits."""
    rehearsal = training.rehearsal()
    if name not in rehearsal.losses or not fits(*rehearsal.losses[name]):
        return None
    usual = getattr(F, name)
    changed = functools.wraps(usual)(other(usual))  # torch names the call by the function that it finds under the name
    training.patches.enter_context(mock.patch.object(F, name, changed))
    return _nodes(rehearsal)


def _of_prediction(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Loss], Loss]:
    """The same loss function, of a changed prediction."""

    def other(usual: Loss) -> Loss:
        def changed(input: torch.Tensor, target: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            return usual(change(input), target, *args, **kwargs)

        return changed

    return other


def _change_loss(training: Training, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    sound = training.loss_of
    training.loss_of = lambda *batch: change(sound(*batch))


@fault(rules=("activation-before-loss", "unreachable-targets", "flat-scores"))
def softmax_before_cross_entropy(training: Training) -> tuple[str, ...] | None:
    """The loss that takes scores is given the softmax of them.

    Source: UMLAUT (Schoop et al., CHI 2021); Karpathy's list of common mistakes (2018), softmaxed outputs.
    """
    return _patch(
        training, "cross_entropy", _of_prediction(lambda x: x.softmax(1)),
        lambda prediction, target: prediction.dim() >= 2 and prediction.requires_grad,
    )  # fmt: skip


@fault(rules=("softmax-over-batch",))
def softmax_over_the_batch(training: Training) -> tuple[str, ...] | None:
    """The softmax is taken over the samples, not over the classes.

    Source: Taxonomy (ICSE 2020), wrong API usage; UMLAUT (CHI 2021), softmax.
    """

    def other(_: Loss) -> Loss:
        return lambda input, target, *_, **__: F.nll_loss(input.log_softmax(0), target)

    return _patch(training, "cross_entropy", other, _classifies_rows)


@fault(rules=("unbounded-loss",), words=("log_softmax",))
def log_softmax_forgotten(training: Training) -> tuple[str, ...] | None:
    """nll_loss takes the place of cross_entropy, and the log_softmax is forgotten.

    Source: Taxonomy (ICSE 2020), missing softmax layer; wrong loss function.
    """
    return _patch(training, "cross_entropy", lambda _: _nll, _classifies_rows)


def _nll(input: torch.Tensor, target: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    return F.nll_loss(input, target)


@fault(rules=("squared-chances",), words=("absolute error",))
def absolute_error_for_classes(training: Training) -> tuple[str, ...] | None:
    """A classifier is trained on the mean absolute error of its probabilities.

    Source: DeepCrime (ISSTA 2021), operator LCH (loss function); Taxonomy (ICSE 2020), wrong loss function.
    """

    def other(_: Loss) -> Loss:
        return lambda input, target, *_, **__: F.l1_loss(input.softmax(1), F.one_hot(target, input.shape[1]).float())

    return _patch(training, "cross_entropy", other, _classifies_rows)


@fault(rules=("activation-before-loss", "unreachable-targets"))
def sigmoid_before_the_loss_with_logits(training: Training) -> tuple[str, ...] | None:
    """The loss that takes logits is given the sigmoid of them.

    Source: Taxonomy (ICSE 2020), loss and output do not fit; UMLAUT (CHI 2021).
    """
    return _patch(training, "binary_cross_entropy_with_logits", _of_prediction(torch.sigmoid))


@fault(rules=("broadcast-target",))
def targets_broadcast(training: Training) -> tuple[str, ...] | None:
    """Predictions [B, 1] are compared with targets [B], each with all.

    Source: PyTorch's warning in mse_loss, "a target size that is different"; DeepFD (Cao et al., ICSE 2022).
    """

    def other(_: Loss) -> Loss:
        return lambda input, target, *_, **__: (input.reshape(-1, 1) - target.reshape(1, -1)).square().mean()

    def fits(prediction: torch.Tensor, target: torch.Tensor) -> bool:
        column = prediction.dim() == 1 or (prediction.dim() == 2 and prediction.shape[1] == 1)
        return _is_compared(prediction, target) and column and len(prediction) > 1

    nodes = _patch(training, "mse_loss", other, fits)
    return (*nodes, "target") if nodes else None


@fault(rules=("learning-rate", "loss-start"), words=("summed",))
def loss_summed(training: Training) -> tuple[str, ...] | None:
    """The loss is summed over the batch, not averaged, and the learning rate is not changed.

    Source: Taxonomy (ICSE 2020), wrong loss function calculation; documentation of ``reduction`` in PyTorch.
    """
    if not isinstance(training.optimizer, torch.optim.SGD):
        return None  # the others divide by the gradients' size anyway
    count = len(training.batches(0)[0])
    if count < 8:
        return None
    _change_loss(training, lambda loss: loss * count)
    return ("loss",)


@fault(rules=("unbounded-loss", "likelihood-sign", "opposed-sides"), words=("wrong sign",))
def loss_negated(training: Training) -> tuple[str, ...]:
    """The sign of the loss is wrong.

    Source: Taxonomy (ICSE 2020), wrong loss function calculation.
    """
    _change_loss(training, torch.neg)
    return ("loss",)


@fault(rules=("loss-start", "adam-epsilon"))
def loss_scaled_away(training: Training) -> tuple[str, ...]:
    """The loss is multiplied by a weight so small that gradients are lost in the optimizer's eps.

    Source: AutoTrainer (ICSE 2021), vanishing gradient and slow convergence; Taxonomy (ICSE 2020), loss calculation.
    """
    _change_loss(training, lambda loss: loss * 1e-10)
    return ("loss",)


@fault(rules=("gradient-cut", "no-gradient"))
def loss_without_its_graph(training: Training) -> tuple[str, ...]:
    """The loss is made a new tensor; requires_grad silenced the error that this had raised.

    Source: PyTorch forum, "element 0 of tensors does not require grad"; Taxonomy (ICSE 2020), wrong API usage.
    """
    _change_loss(training, lambda loss: loss.detach().clone().requires_grad_())
    return ("loss",)


@fault(rules=("shrinking-weights", "loss-balance", "loss-start"), words=("penalty",))
def penalty_too_strong(training: Training) -> tuple[str, ...]:
    """The penalty on the absolute weights outweighs the loss.

    Source: DeepCrime (ISSTA 2021), operator RAW (add weights regularisation).
    """
    parameters = [parameter for _, parameter in training.parameters()]
    _change_loss(training, lambda loss: loss + 0.5 * sum(parameter.abs().sum() for parameter in parameters))
    return ("loss", *everything(training))
