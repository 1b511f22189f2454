"""Mistakes between the gradient and the weights: scaling, accumulation, parameter groups, checkpoints, schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import mlp

WEIGHTS = ("model.0.weight", "model.2.weight", "model.4.weight")
EPOCH = 22
LOSS_SCALE = 2.0**16


@broken(rules=("constant-clipping", "learning-rate"), words=("clip",), nodes=("loss", *WEIGHTS))
def clipped_before_unscaling(lab: Lab) -> None:
    """Gradients of a loss scaled by 65,536 are clipped to 1 before they are unscaled, which leaves almost nothing.

    Source: Pytorch-UNet issue 468, pytorch/examples issue 1196, allennlp pull request 5426.
    """
    model = mlp(64, 48, 48, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    lab.recorder.watch(model, optimizer)

    def unscale() -> None:
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad /= LOSS_SCALE

    def clip() -> None:
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)

    order: list[Callable[[], None]] = [unscale, clip] if lab.fixed else [clip, unscale]
    batches = data.draw(data.pixels())
    for number in range(lab.steps):
        x, y = batches(number)
        with lab.recorder.step("train"):
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            (loss * LOSS_SCALE).backward()
            for change in order:
                change()  # set-up bug: clipped_before_unscaling
            optimizer.step()


@broken(
    rules=("learning-rate", "exploding-gradient", "loss-divergence", "loss-spike", "oscillating-loss"),
    words=("learning rate", "accumulat"), nodes=("loss", *WEIGHTS),
)  # fmt: skip
def accumulated_without_dividing(lab: Lab) -> None:
    """The gradients of eight small batches are added up, but their losses are not divided by eight.

    Source: Transformers issue 37766 and axolotl issue 1100, losses that grow with gradient_accumulation_steps.
    """
    model = mlp(64, 48, 48, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    lab.recorder.watch(model, optimizer)
    batches = data.draw(data.pixels(), 16)
    parts = 8
    for number in range(lab.steps):
        with lab.recorder.step("train") as step:
            optimizer.zero_grad()
            for part in range(parts):
                x, y = batches(number * parts + part)
                with step.iteration():
                    loss = F.cross_entropy(model(x), y)
                    (loss / parts if lab.fixed else loss).backward()  # bug: accumulated_without_dividing
            optimizer.step()


@broken(
    rules=("scheduler-rhythm", "learning-rate"), words=("schedul",), nodes=("loss", *WEIGHTS),
)  # fmt: skip
def one_cycle_stepped_each_epoch(lab: Lab) -> None:
    """OneCycleLR is made for single steps, but stepped after each epoch: it never leaves its low start.

    Source: pytorch/pytorch issue 65417, PyTorch Lightning issue 5631, handson-mlp issue 28.
    """
    model = mlp(64, 48, 48, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.2, total_steps=lab.steps + 1, div_factor=100, cycle_momentum=False
    )

    def after(number: int) -> None:
        if lab.fixed or number % EPOCH == EPOCH - 1:  # set-up bug: one_cycle_stepped_each_epoch
            scheduler.step()

    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y), optimizer, after=after)


@broken(rules=("learning-rate-decay", "scheduler-rhythm"), words=("schedul",), nodes=("loss", *WEIGHTS))
def plateau_of_a_loss_that_should_rise(lab: Lab) -> None:
    """ReduceLROnPlateau watches the loss in the mode for accuracies: as the loss falls, it cuts the learning rate.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong learning rate; PyTorch's documentation of the two modes.
    """
    model = mlp(64, 48, 48, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    mode: Literal["min", "max"] = "min" if lab.fixed else "max"
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(  # set-up bug: plateau_of_a_loss_that_should_rise
        optimizer, mode, factor=0.1, patience=4
    )
    latest = torch.zeros(())

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        nonlocal latest
        loss = F.cross_entropy(model(x), y)
        latest = loss.detach()
        return loss

    def after(number: int) -> None:
        if number % 5 == 4:
            scheduler.step(latest)

    lab.fit(model, data.draw(data.pixels()), loss_of, optimizer, after=after)


@broken(
    rules=("untrained-parameters", "unchanged-parameters"), words=("optimizer",),
    nodes=("model.0.weight", "model.2.weight", "model.0.bias", "model.2.bias", "model.0", "model.2"), onset=40,
)  # fmt: skip
def unfrozen_but_not_in_the_optimizer(lab: Lab) -> None:
    """The backbone is unfrozen at step 40, but the optimizer was given only what could train at the start.

    Source: PyTorch Lightning pull request 5744 and fastai issue 2133: a new optimizer, or group, is needed.
    """
    model = mlp(64, 8, 8, 10)
    backbone = [*model[0].parameters(), *model[2].parameters()]
    for parameter in backbone:
        parameter.requires_grad_(False)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trainable, lr=1e-2)

    def after(number: int) -> None:
        if number == 39:
            for parameter in backbone:
                parameter.requires_grad_(True)  # set-up bug: unfrozen_but_not_in_the_optimizer
            if lab.fixed:
                optimizer.add_param_group({"params": backbone, "lr": 1e-2})

    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y), optimizer, after=after)


@broken(
    rules=("learning-rate", "unchanged-parameters"), words=("learning rate", "parameter group"),
    nodes=("model.0.weight", "model.2.weight", "model.0.bias", "model.2.bias"),
)  # fmt: skip
def learning_rate_of_zero_for_the_body(lab: Lab) -> None:
    """The body's parameter group gets a hundredth to the power of its depth, which is nothing for a fresh net.

    Source: a Dreambooth trainer's issue 28, parameters with a learning rate of zero; layer-wise decay of fine-tuning.
    """
    model = mlp(64, 8, 8, 10)
    decay = 0.9 if lab.fixed else 0.01
    groups = [
        {
            "params": layer.parameters(),
            "lr": 1e-2 * decay ** (4 - depth),
        }  # set-up bug: learning_rate_of_zero_for_the_body
        for depth, layer in ((0, model[0]), (1, model[2]), (4, model[4]))
    ]
    optimizer = torch.optim.Adam(groups)
    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y), optimizer)


@broken(rules=("untrained-parameters", "unchanged-parameters"), words=("optimizer",), nodes=WEIGHTS, onset=20)
def checkpoint_assigned_after_the_optimizer(lab: Lab) -> None:
    """A checkpoint is loaded with ``assign=True`` at step 20: the optimizer still holds the tensors of before.

    Source: PyTorch's recipe for loading modules (the optimizer must be made after); pytorch/pytorch issue 188346.
    """
    model = mlp(64, 48, 48, 10)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def after(number: int) -> None:
        if number == 19:
            checkpoint = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            assign = not lab.fixed
            model.load_state_dict(checkpoint, assign=assign)  # set-up bug: checkpoint_assigned_after_the_optimizer

    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y), optimizer, after=after)


@broken(rules=("optimizer-reset",), words=("made anew", "forgets", "state of the optimizer"), nodes=("loss", *WEIGHTS))
def optimizer_made_anew_in_every_step(lab: Lab) -> None:
    """Adam is made inside the loop, so that each step is its first one: every weight moves as far as all others.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong optimisation; a forum classic, optimizer in the loop.
    """
    model = mlp(64, 48, 48, 10)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    lab.recorder.watch(model, optimizer)
    batches = data.draw(data.pixels())
    for number in range(lab.steps):
        if not lab.fixed:
            optimizer = torch.optim.Adam(  # set-up bug: optimizer_made_anew_in_every_step
                model.parameters(), lr=3e-3
            )
            lab.recorder.watch(model, optimizer)
        x, y = batches(number)
        with lab.recorder.step("train"):
            descend(F.cross_entropy(model(x), y), optimizer)


@broken(rules=("scheduler-rhythm", "learning-rate-decay"), words=("schedul", "restart"), nodes=("loss", *WEIGHTS))
def warm_restarts_in_every_few_steps(lab: Lab) -> None:
    """A cosine with warm restarts, whose period is meant in epochs, is stepped after each batch.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong learning rate; PyTorch's documentation of the schedule.
    """
    model = mlp(64, 48, 48, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=5)

    def after(number: int) -> None:
        if not lab.fixed or number % EPOCH == EPOCH - 1:  # set-up bug: warm_restarts_in_every_few_steps
            scheduler.step()

    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y), optimizer, after=after)


@broken(rules=("clamped-weights",), words=("clamp",), nodes=WEIGHTS)
def weights_clamped_instead_of_gradients(lab: Lab) -> None:
    """After each step the weights are clamped to a hundredth, where their gradients were meant.

    Source: Arjovsky et al. (2017), whose critic needs it; taxonomy of Humbatova et al. (ICSE 2020), wrong optimisation.
    """
    model = mlp(64, 48, 48, 10)

    @torch.no_grad()
    def after(_: int) -> None:
        for parameter in model.parameters() if not lab.fixed else ():
            parameter.clamp_(-0.01, 0.01)  # set-up bug: weights_clamped_instead_of_gradients

    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y), after=after)
