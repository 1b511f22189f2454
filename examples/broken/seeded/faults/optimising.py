"""Faults of the optimizer: its rate, its other numbers, and what it is given."""

from __future__ import annotations

import torch
from torch import nn

from stepscope.examples.broken.seeded.fault import fault
from stepscope.examples.broken.seeded.training import Training

ADAPTIVE = (torch.optim.Adam, torch.optim.RMSprop, torch.optim.NAdam, torch.optim.Adagrad)
"""AdamW is an Adam, too."""


def everything(training: Training) -> tuple[str, ...]:
    """All parameters."""
    return tuple(name for name, _ in training.parameters())


def _set(training: Training, key: str, value: object) -> tuple[str, ...] | None:
    """Set a number of the optimizer, if it has it."""
    if key not in training.optimizer.param_groups[0]:
        return None
    for group in training.optimizer.param_groups:
        group[key] = value
    return everything(training)


@fault(rules=("learning-rate",), words=("learning rate",))
def learning_rate_too_high(training: Training) -> tuple[str, ...]:
    """The learning rate is 300 times what it should be.

    Source: DeepCrime (Humbatova, Jahangirova, Tonella, ISSTA 2021), operator HLR, and the taxonomy's "suboptimal
    learning rate".
    """
    for group in training.optimizer.param_groups:
        group["lr"] *= 300
    return everything(training)


@fault(rules=("learning-rate",), words=("learning rate",))
def learning_rate_too_low(training: Training) -> tuple[str, ...]:
    """The learning rate is a hundredth, or less, of what it should be.

    Source: DeepCrime (ISSTA 2021), operator HLR; AutoTrainer (Zhang et al., ICSE 2021), slow convergence.
    """
    factor = training.random.choice((100, 1000, 10_000))
    for group in training.optimizer.param_groups:
        group["lr"] /= factor
    return everything(training)


@fault(rules=("learning-rate-decay", "scheduler-rhythm"))
def learning_rate_decays_too_fast(training: Training) -> tuple[str, ...]:
    """A schedule that is meant for epochs is stepped with each batch, so that the learning rate is soon nothing.

    Source: PyTorch forum and documentation of torch.optim.lr_scheduler, scheduler.step() in the inner loop.
    """

    def decay(number: int) -> None:
        for group in training.optimizer.param_groups:
            group["lr"] *= 0.7

    training.after_each_step(decay)
    return everything(training)


@fault(rules=("optimizer-settings",), words=("momentum", "betas"))
def momentum_too_high(training: Training) -> tuple[str, ...] | None:
    """The momentum is so high that an update is the mean of a thousand gradients.

    Source: Taxonomy of Real Faults (Humbatova et al., ICSE 2020), suboptimal hyperparameters of the optimizer.
    """
    optimizer = training.optimizer
    if isinstance(optimizer, (torch.optim.Adam, torch.optim.NAdam)):
        return _set(training, "betas", (0.999, 0.999))
    if isinstance(optimizer, torch.optim.SGD):
        return _set(training, "momentum", 0.999)
    return None


@fault(rules=("shrinking-weights",), words=("weight decay",))
def weight_decay_too_strong(training: Training) -> tuple[str, ...] | None:
    """The weight decay is so strong that it keeps the weights near zero.

    Source: DeepCrime (ISSTA 2021), operator RAW (weight regularisation); UMLAUT (Schoop et al., CHI 2021).
    """
    return _set(training, "weight_decay", 10.0 if isinstance(training.optimizer, torch.optim.AdamW) else 1.0)


@fault(rules=("adam-epsilon",))
def eps_dominates(training: Training) -> tuple[str, ...] | None:
    """The eps in the optimizer's denominator is far larger than the gradients, so that nothing is divided by them.

    Source: documentation of Adam in TensorFlow ("1.0 or 0.1"); Taxonomy (ICSE 2020), hyperparameters of the optimizer.
    """
    return _set(training, "eps", 1.0) if isinstance(training.optimizer, ADAPTIVE) else None


@fault(rules=("constant-clipping",))
def gradients_clipped_too_tightly(training: Training) -> tuple[str, ...] | None:
    """The gradients are clipped to a norm of a thousandth.

    Source: DeepCrime (ISSTA 2021), operator OCG (gradient clipping).
    """
    if not isinstance(training.optimizer, torch.optim.SGD):
        return None  # the others divide by the gradients' size anyway
    parameters = [parameter for _, parameter in training.parameters()]
    training.before_each_update(lambda: nn.utils.clip_grad_norm_(parameters, 1e-3))
    return everything(training)


@fault(rules=("optimizer-settings",), words=("maximize",))
def maximised(training: Training) -> tuple[str, ...] | None:
    """The optimizer maximises the loss.

    Source: PyTorch's optimizers, option ``maximize``; Taxonomy (ICSE 2020), wrong optimisation.
    """
    return _set(training, "maximize", value=True)


@fault(rules=("untrained-parameters",))
def optimizer_of_copies(training: Training) -> tuple[str, ...]:
    """The optimizer was given copies of the parameters, as when the model is copied or moved afterwards.

    Source: TrainCheck (OSDI 2025); PyTorch's documentation of torch.optim, "move a model before the optimizer".
    """
    for group in training.optimizer.param_groups:
        group["params"] = [parameter.detach().clone().requires_grad_() for parameter in group["params"]]
    return everything(training)


@fault(rules=("untrained-parameters",))
def layers_missing_from_the_optimizer(training: Training) -> tuple[str, ...] | None:
    """Only the parameters of one layer were given to the optimizer.

    Source: Taxonomy (ICSE 2020), training process; PyTorch forum, layers that are not in model.parameters().
    """
    parameters = training.parameters()
    kept = training.random.choice(training.rehearsal().layers or [""])
    missing = {name: parameter for name, parameter in parameters if not name.startswith(f"{kept}.")}
    if not kept or len(missing) in (0, len(parameters)):
        return None
    lost = {id(parameter) for parameter in missing.values()}
    for group in training.optimizer.param_groups:
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in lost]
    return tuple(missing)


@fault(rules=("learning-rate",), words=("learning rate",))
def optimizer_changed(training: Training) -> tuple[str, ...] | None:
    """Adam was changed to plain gradient descent, and its small learning rate was left.

    Source: DeepCrime (ISSTA 2021), operator OCH (optimisation function).
    """
    if not isinstance(training.optimizer, ADAPTIVE):
        return None
    groups = [{"params": group["params"], "lr": group["lr"]} for group in training.optimizer.param_groups]
    training.optimizer = torch.optim.SGD(groups)
    return everything(training)
