"""Faults by which gradients do not arrive, or arrive wrong."""

from __future__ import annotations

import functools
from typing import Any

import torch

from stepscope.examples.broken.seeded.fault import fault
from stepscope.examples.broken.seeded.faults.layers import change_a_hidden_layer
from stepscope.examples.broken.seeded.training import Training


@fault(rules=("gradient-cut", "no-gradient"))
def layer_detached(training: Training) -> tuple[str, ...] | None:
    """What a layer in the middle returns is detached.

    Source: Taxonomy (ICSE 2020), wrong API usage; PyTorch forum, detach() and .data in a forward.
    """
    return change_a_hidden_layer(training, torch.Tensor.detach)


@fault(rules=("gradient-cut", "no-gradient"))
def layer_without_gradient(training: Training) -> tuple[str, ...] | None:
    """A layer in the middle is called under torch.no_grad.

    Source: TrainCheck (Jiang et al., OSDI 2025); PyTorch forum, no_grad left around a part of the model.
    """
    hidden = training.rehearsal().hidden()
    if not hidden:
        return None
    node = training.random.choice(hidden)
    module = training.module(node)
    forward = module.forward

    @functools.wraps(forward)
    def silent(*args: Any, **kwargs: Any) -> torch.Tensor:
        with torch.no_grad():
            return forward(*args, **kwargs)

    module.forward = silent
    return training.with_parameters(node)


@fault(rules=("gradient-cut", "no-gradient"), words=("rounded",))
def layer_rounded(training: Training) -> tuple[str, ...] | None:
    """What a layer returns is rounded, which has no gradient but zero.

    Source: PyTorch forum, torch.round is not differentiable; Bengio et al. (2013), straight-through estimators.
    """
    return change_a_hidden_layer(training, torch.round)


class _WrongSign(torch.autograd.Function):
    """The same, with a backward of the wrong sign."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return -gradient


@fault(rules=("own-backward", "altered-gradients"), words=("wrong sign",))
def backward_with_the_wrong_sign(training: Training) -> tuple[str, ...] | None:
    """A function with a backward of its own, behind a layer, gives gradients of the wrong sign.

    Source: PyTorch's notes on extending autograd, gradcheck; NeuralLint and Taxonomy (ICSE 2020), wrong gradients.
    """
    return change_a_hidden_layer(training, lambda x: _WrongSign.apply(x))  # type: ignore[no-untyped-call]


@fault(rules=("non-finite",))
def root_hidden_by_where(training: Training) -> tuple[str, ...] | None:
    """A square root of negative numbers is hidden by torch.where, but the gradient goes through it all the same.

    Source: PyTorch issues 52248 and 68425, NaN gradient of torch.where; DeepLocalize (ICSE 2021), numerical errors.
    """
    return change_a_hidden_layer(training, lambda x: torch.where(x > 0, x.sqrt(), 0))


@fault(rules=("altered-gradients",), words=("noise",))
def gradients_drowned_in_noise(training: Training) -> tuple[str, ...]:
    """The noise that is added to the gradients, as for privacy, is a hundred times as large as they are.

    Source: DeepMutation (Ma et al., ISSRE 2018), gaussian fuzzing, here of gradients; Neelakantan et al. (2015).
    """
    generator = torch.Generator().manual_seed(training.random.randrange(2**31))
    parameters = [parameter for _, parameter in training.parameters()]

    def disturb() -> None:
        for parameter in parameters:
            if parameter.grad is not None and not parameter.grad.is_sparse:
                size = parameter.grad.square().mean().sqrt()
                parameter.grad.add_(100 * size * torch.randn(parameter.shape, generator=generator))

    training.before_each_update(disturb)
    return tuple(name for name, _ in training.parameters())
