"""Faults of the training loop: what is called when, and on which mode."""

from __future__ import annotations

import copy

import torch
from torch import nn

from stepscope.examples.broken.seeded.fault import fault
from stepscope.examples.broken.seeded.faults.optimising import everything
from stepscope.examples.broken.seeded.training import Training

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d)


@fault(rules=("accumulated-gradients",))
def gradients_not_cleared(training: Training) -> tuple[str, ...]:
    """Gradients are never set to zero.

    Source: Humbatova et al., Taxonomy of Real Faults in Deep Learning Systems (ICSE 2020), "training process".
    """
    training.optimizer.zero_grad = lambda set_to_none=True: None  # type: ignore[method-assign]
    return everything(training)


@fault(rules=("unchanged-parameters",), words=("zero_grad",))
def gradients_cleared_before_the_update(training: Training) -> tuple[str, ...]:
    """Gradients are set to zero between the backward pass and the optimizer's step.

    Source: Karpathy's list of common mistakes (2018), zero_grad before backward; PyTorch forum.
    """
    training.before_each_update(lambda: training.optimizer.zero_grad())
    return everything(training)


@fault(rules=("unchanged-parameters",), words=("step()",))
def step_never_called(training: Training) -> tuple[str, ...]:
    """The optimizer's step is never called.

    Source: TrainCheck (Jiang et al., OSDI 2025); Taxonomy (ICSE 2020), training process.
    """
    training.optimizer.step = lambda closure=None: None  # type: ignore[method-assign,assignment]
    return everything(training)


@fault(rules=("discarded-gradients", "rare-updates"))
def accumulated_over_too_many_batches(training: Training) -> tuple[str, ...]:
    """Gradients are gathered over fifty batches before each update.

    Source: DeepCrime (ISSTA 2021), operator HBS (batch size); Taxonomy (ICSE 2020), suboptimal batch size.
    """
    optimizer = training.optimizer
    step, clear = optimizer.step, optimizer.zero_grad
    calls = {"step": 0}

    def every_fiftieth(closure: None = None) -> None:
        calls["step"] += 1
        if calls["step"] % 50 == 0:
            step()

    def after_it(set_to_none: bool = True) -> None:
        if calls["step"] % 50 == 0:
            clear(set_to_none)

    optimizer.step = every_fiftieth  # type: ignore[method-assign,assignment]
    optimizer.zero_grad = after_it  # type: ignore[method-assign]
    return everything(training)


@fault(rules=("weights-reset",))
def checkpoint_loaded_again(training: Training) -> tuple[str, ...]:
    """The first checkpoint is loaded again every few steps, as at the begin of each epoch.

    Source: Taxonomy (ICSE 2020), training process; PyTorch forum, model created within the loop over the epochs.
    """
    first = copy.deepcopy(training.model.state_dict())
    every = training.random.choice((5, 10))

    def load(number: int) -> None:
        if number % every == every - 1:
            training.model.load_state_dict(first)

    training.after_each_step(load)
    return everything(training)


@fault(rules=("batch-norm-mode", "dropout-mode"), words=("evaluation mode",))
def training_in_evaluation_mode(training: Training) -> tuple[str, ...] | None:
    """The model is trained in evaluation mode, because train() is not called again after the first validation.

    Source: Karpathy's list of common mistakes (2018), train and eval mode; TrainCheck (OSDI 2025).
    """
    found = [(node, module) for node, module in training.modules(*NORMS, *DROPOUTS) if module.training]
    if not found:
        return None
    model = training.model
    model.eval()
    model.train = lambda mode=True: model  # type: ignore[method-assign]
    return tuple(node for node, _ in found)


@fault(rules=("batch-norm-mode",), words=("running statistics",))
def running_statistics_too_slow(training: Training) -> tuple[str, ...] | None:
    """The momentum of batch normalisation is meant the other way round, so that running statistics hardly move.

    Source: documentation of BatchNorm in PyTorch ("different from the one used in optimizer classes") and in Keras.
    """
    found = [(node, module) for node, module in training.modules(*NORMS) if getattr(module, "momentum", None)]
    for _, module in found:
        module.momentum = 1e-4  # type: ignore[assignment]
    return training.with_parameters(*(node for node, _ in found)) or None


@fault(rules=("dropout-mode",), words=("dropout",))
def dropout_too_high(training: Training) -> tuple[str, ...] | None:
    """Dropout keeps a hundredth of the units: the chance to keep was meant, not that to drop.

    Source: DeepCrime (ISSTA 2021), operator RCD (dropout rate); Keras and TensorFlow 1 differed in what they expect.
    """
    found = training.modules(*DROPOUTS)
    for _, module in found:
        module.p = 0.99  # type: ignore[assignment]
    if found:
        return tuple(node for node, _ in found)
    hidden = training.rehearsal().hidden()
    if not hidden:
        return None
    node = training.random.choice(hidden)
    module = training.module(node)
    training.change_output(node, lambda x: torch.nn.functional.dropout(x, 0.99, module.training))
    return (node,)
