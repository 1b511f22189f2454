"""Trainings that are right until something changes in the midst of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab
from stepscope.examples.broken.nets import mlp

MIDDLE = 90


@broken(
    rules=("settings-change", "learning-rate", "scheduler-rhythm"), words=("learning rate", "lr changes"),
    nodes=("model", "model.0.weight", "model.2.weight"), onset=MIDDLE,
)  # fmt: skip
def milestone_multiplies_by_a_hundred(lab: Lab) -> None:
    """The milestone of the schedule has the factor 100, where it should have been 0.01: the rate is far too high then.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong learning rate; PyTorch forum, gamma of MultiStepLR.
    """
    model = mlp(64, 48, 10)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    gamma = 0.01 if lab.fixed else 100.0  # set-up bug: milestone_multiplies_by_a_hundred
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [MIDDLE], gamma)
    lab.fit(
        model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y), optimizer,
        after=lambda number: schedule.step(),
    )  # fmt: skip


@broken(rules=("data-shift", "input-scale", "extreme-batch"), words=("inputs change",), nodes=("input",), onset=MIDDLE)
def second_file_is_of_bytes(lab: Lab) -> None:
    """The second file of the data has inverted bytes from 0 to 255, where the first one has parts of one.

    Source: Karpathy's recipe (2019), become one with the data; UMLAUT (CHI 2021), input data exceeds its limits.
    """
    model = mlp(64, 48, 10)
    draw = data.draw(data.pixels())

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        x, y = draw(number)
        if number >= MIDDLE and not lab.fixed:
            x = 255 * (0.5 - x)  # set-up bug: second_file_is_of_bytes
        return x, y

    lab.fit(model, batches, lambda x, y: F.cross_entropy(model(x), y))


@broken(rules=("unrelated-targets",), words=("other samples",), nodes=("target", "loss"), onset=MIDDLE)
def second_epoch_shuffles_the_inputs_only(lab: Lab) -> None:
    """From the second epoch on the inputs are shuffled, and the labels are not.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong labels; Stack Overflow, shuffling two lists alike.
    """
    model = mlp(64, 48, 10)
    draw = data.draw(data.pixels())

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        x, y = draw(number)
        if number >= MIDDLE:
            order = torch.randperm(len(x))
            x = x[order]
            y = y[order] if lab.fixed else y  # set-up bug: second_epoch_shuffles_the_inputs_only
        return x, y

    lab.fit(model, batches, lambda x, y: F.cross_entropy(model(x), y))
