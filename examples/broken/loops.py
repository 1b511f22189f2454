"""Mistakes in the training loop: calls that are missing, misplaced or made too often."""

from __future__ import annotations

from itertools import chain

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import mlp

WEIGHTS = ("model.0.weight", "model.2.weight", "model.4.weight")


@broken(rules=("accumulated-gradients",), words=("zero_grad",), nodes=WEIGHTS)
def zero_grad_missing(lab: Lab) -> None:
    """optimizer.zero_grad() is never called, so that each step adds its gradient to all earlier ones.

    Source: TrainCheck (OSDI 2025), stackoverflow-60335387.
    """
    model = mlp(64, 48, 48, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    lab.recorder.watch(model, optimizer)
    batches = data.draw(data.pixels())
    for number in range(lab.steps):
        x, y = batches(number)
        with lab.recorder.step("train"):
            loss = F.cross_entropy(model(x), y)
            if lab.fixed:
                optimizer.zero_grad()
            loss.backward()  # set-up bug: zero_grad_missing
            optimizer.step()


@broken(rules=("unchanged-parameters", "no-gradient"), words=("zero_grad",), nodes=WEIGHTS)
def zero_grad_after_backward(lab: Lab) -> None:
    """optimizer.zero_grad() stands between backward() and step(), so that step() sees no gradient.

    Source: TrainCheck (OSDI 2025), order of zero_grad, backward and step.
    """
    model = mlp(64, 48, 48, 10)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    lab.recorder.watch(model, optimizer)
    batches = data.draw(data.pixels())
    for number in range(lab.steps):
        x, y = batches(number)
        with lab.recorder.step("train"):
            loss = F.cross_entropy(model(x), y)
            if lab.fixed:
                optimizer.zero_grad()
            loss.backward()
            if not lab.fixed:
                optimizer.zero_grad()  # set-up bug: zero_grad_after_backward
            optimizer.step()


@broken(rules=("unchanged-parameters",), nodes=WEIGHTS)
def step_never_called(lab: Lab) -> None:
    """optimizer.step() is never called.

    Source: taxonomy of Humbatova et al. (ICSE 2020), missing API call.
    """
    model = mlp(64, 48, 48, 10)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    lab.recorder.watch(model, optimizer)
    batches = data.draw(data.pixels())
    for number in range(lab.steps):
        x, y = batches(number)
        with lab.recorder.step("train"):
            loss = F.cross_entropy(model(x), y)
            if lab.fixed:
                descend(loss, optimizer)
            else:
                optimizer.zero_grad()
                loss.backward()  # set-up bug: step_never_called


@broken(
    rules=("untrained-parameters", "unchanged-parameters"), words=("optimizer",),
    nodes=("model.2.weight", "model.2.bias"),
)  # fmt: skip
def head_replaced_after_the_optimizer(lab: Lab) -> None:
    """The head is replaced after the optimizer was made, which goes on training the old one.

    Source: TrainCheck (OSDI 2025), the optimizer holds other parameters than the model (DeepSpeed and Transformers).
    """
    model = mlp(64, 48, 5)
    if lab.fixed:
        model[2] = nn.Linear(48, 10)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    if not lab.fixed:
        model[2] = nn.Linear(48, 10)  # set-up bug: head_replaced_after_the_optimizer
    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y), optimizer)


@broken(
    rules=("untrained-parameters", "unchanged-parameters"), words=("optimizer",),
    nodes=("model.decoder.0.weight", "model.decoder.2.weight", "model.decoder.0.bias", "model.decoder.2.bias"),
)  # fmt: skip
def decoder_not_in_the_optimizer(lab: Lab) -> None:
    """Only the encoder's parameters were given to the optimizer of an autoencoder.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong optimisation; parameters left out.
    """
    model = nn.ModuleDict({"encoder": mlp(64, 32, 16), "decoder": mlp(16, 32, 64)})
    trained = [model["encoder"], model["decoder"]] if lab.fixed else [model["encoder"]]
    optimizer = torch.optim.Adam(  # set-up bug: decoder_not_in_the_optimizer
        chain.from_iterable(module.parameters() for module in trained), lr=3e-3
    )
    lab.fit(
        model, data.draw(data.pixels()), lambda x, _: F.mse_loss(model["decoder"](model["encoder"](x)), x), optimizer
    )


@broken(
    rules=("no-gradient", "unchanged-parameters", "frozen-parameters"), words=("frozen", "trainable", "requires_grad"),
    nodes=("model", "loss", *WEIGHTS),
)  # fmt: skip
def all_layers_frozen(lab: Lab) -> None:
    """All layers are frozen, the new head too, and ``requires_grad_`` on the loss silenced the error.

    Source: TrainCheck (OSDI 2025), PyTorch-FORUM84911: no trainable layer exists.
    """
    model = mlp(64, 48, 48, 10)
    if not lab.fixed:
        model.requires_grad_(False)  # set-up bug: all_layers_frozen

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        loss = F.cross_entropy(model(x), y)
        return loss if lab.fixed else loss.requires_grad_()

    lab.fit(model, data.draw(data.pixels()), loss_of)


@broken(
    rules=("weights-reset", "loss-spike"), words=("initial", "reset", "made anew"), nodes=("loss", *WEIGHTS), onset=40
)
def weights_made_anew_each_epoch(lab: Lab) -> None:
    """The weights are initialised again at the start of every epoch of 40 steps.

    Source: taxonomy of Humbatova et al. (ICSE 2020), multiple initialisations of the net.
    """
    model = mlp(64, 48, 48, 10)

    def next_epoch(number: int) -> None:
        if number % 40 == 39 and not lab.fixed:
            for layer in model:
                if isinstance(layer, nn.Linear):
                    layer.reset_parameters()  # set-up bug: weights_made_anew_each_epoch

    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y), after=next_epoch)


@broken(rules=("repeated-batch",), words=("same batch", "same in every"), nodes=("input", "target"))
def same_batch_in_every_step(lab: Lab) -> None:
    """``next(iter(loader))`` in the loop starts the loader anew in each step, which gives the first batch for ever.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong use of the data loader.
    """
    model = mlp(64, 48, 10)
    batches = data.draw(data.pixels())

    def restarted(_: int) -> tuple[torch.Tensor, ...]:
        return batches(0)  # set-up bug: same_batch_in_every_step

    lab.fit(model, batches if lab.fixed else restarted, lambda x, y: F.cross_entropy(model(x), y))


@broken(
    rules=("learning-rate-decay", "scheduler-rhythm"), words=("schedul",),
    nodes=("loss", *WEIGHTS),
)  # fmt: skip
def scheduler_stepped_each_batch(lab: Lab) -> None:
    """A scheduler that is meant for epochs is stepped after each batch: the learning rate is gone after 40 steps.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong learning rate; PyTorch's documentation of StepLR.
    """
    model = mlp(64, 48, 48, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.1)

    def after(number: int) -> None:
        if not lab.fixed or number % 22 == 21:  # set-up bug: scheduler_stepped_each_batch
            scheduler.step()

    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y), optimizer, after=after)


@broken(
    rules=("learning-rate", "unchanged-parameters", "learning-rate-decay"), words=("learning rate",),
    nodes=("loss", *WEIGHTS),
)  # fmt: skip
def warm_up_by_integer_division(lab: Lab) -> None:
    """The warm-up divides whole numbers, ``step // 1000``, so that the learning rate is zero for a thousand steps.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong learning rate; a recurring mistake in schedules by hand.
    """
    model = mlp(64, 48, 48, 10)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def warm_up(step: int) -> float:
        if lab.fixed:
            return min(1.0, (step + 1) / 30)
        return float(min(1, step // 1000))  # set-up bug: warm_up_by_integer_division

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_up)
    lab.fit(
        model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y), optimizer,
        after=lambda _: scheduler.step(),
    )  # fmt: skip


@broken(rules=("learning-rate", "constant-clipping"), words=("clip",), nodes=("loss", *WEIGHTS))
def clipping_to_almost_nothing(lab: Lab) -> None:
    """Gradients are clipped to a norm of 1e-4 in every step, and plain SGD then hardly moves.

    Source: SageMaker Debugger's WeightUpdateRatio; TrainCheck (OSDI 2025), gradient clipping gone wrong.
    """
    model = mlp(64, 48, 48, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    lab.recorder.watch(model, optimizer)
    batches = data.draw(data.pixels())
    for number in range(lab.steps):
        x, y = batches(number)
        with lab.recorder.step("train"):
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            most = 5.0 if lab.fixed else 1e-4
            nn.utils.clip_grad_norm_(model.parameters(), most)  # set-up bug: clipping_to_almost_nothing
            optimizer.step()
