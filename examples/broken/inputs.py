"""Mistakes in the data: scales, values that are missing, labels that do not belong to their samples."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab
from stepscope.examples.broken.nets import mlp

Batch = tuple[torch.Tensor, ...]


@broken(rules=("input-scale",), nodes=("input", "model.0"))
def pixels_up_to_255(lab: Lab) -> None:
    """Pixels go in as they come from the file, between 0 and 255.

    Source: SageMaker Debugger's CheckInputImages; UMLAUT (CHI 2021), inputs are not normalised.
    """
    model = mlp(64, 48, 10)
    x, y = data.pixels()
    if not lab.fixed:
        x = (x - x.min()) / (x.max() - x.min()) * 255  # set-up bug: pixels_up_to_255
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    lab.fit(model, data.draw((x, y)), lambda x, y: F.cross_entropy(model(x), y), optimizer)


@broken(rules=("input-scale",), nodes=("input", "model.0"))
def divided_by_255_twice(lab: Lab) -> None:
    """The loader divides the pixels by 255, and so does the training script: inputs are smaller than 0.004.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong or repeated preprocessing.
    """
    model = mlp(64, 48, 10)
    x, y = data.pixels()
    if not lab.fixed:
        x = (x - x.min()) / (x.max() - x.min()) / 255  # set-up bug: divided_by_255_twice
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    lab.fit(model, data.draw((x, y)), lambda x, y: F.cross_entropy(model(x), y), optimizer)


@broken(rules=("input-scale", "extreme-features"), nodes=("input", "model.0"))
def features_of_different_sizes(lab: Lab) -> None:
    """The measurements are not standardised: one goes up to 4,000, another to 0.03.

    Source: taxonomy of Humbatova et al. (ICSE 2020), missing normalisation.
    """
    model = mlp(30, 32, 1)
    table = data.tumours() if lab.fixed else data.raw_tumours()  # set-up bug: features_of_different_sizes
    lab.fit(model, data.draw(table), lambda x, y: F.binary_cross_entropy_with_logits(model(x)[:, 0], y))


@broken(rules=("non-finite",), nodes=("input",), onset=40)
def missing_values(lab: Lab) -> None:
    """From step 40 on, a few measurements are missing and stand as NaN in the data.

    Source: SageMaker Debugger's ExplodingTensor; UMLAUT (CHI 2021), NaN in the input.
    """
    model = mlp(30, 32, 1)
    batches = data.draw(data.tumours())

    def with_holes(number: int) -> Batch:
        x, y = batches(number)
        if number >= 40:
            x[3, 7] = torch.nan  # set-up bug: missing_values
        return x, y

    lab.fit(
        model, batches if lab.fixed else with_holes,
        lambda x, y: F.binary_cross_entropy_with_logits(model(x)[:, 0], y),
    )  # fmt: skip


@broken(
    rules=("unrelated-targets",), words=("unrelated", "independent of", "not depend", "nothing to do"),
    nodes=("target", "input", "loss"),
)  # fmt: skip
def labels_shuffled(lab: Lab) -> None:
    """Images and labels were shuffled apart, so that labels have nothing to do with their images.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong labels.
    """
    model = mlp(64, 48, 10)
    x, y = data.pixels()
    if not lab.fixed:
        y = y[torch.randperm(len(y))]  # set-up bug: labels_shuffled
    lab.fit(model, data.draw((x, y)), lambda x, y: F.cross_entropy(model(x), y))


@broken(
    rules=("constant-data",), words=("sorted", "one class", "same class", "same target", "same label"),
    nodes=("target",),
)  # fmt: skip
def sorted_by_class(lab: Lab) -> None:
    """The data is sorted by class and not shuffled, so that a batch has one class only.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong position of the shuffling.
    """
    model = mlp(64, 48, 10)
    x, y = data.pixels()
    order = y.argsort()
    batches = data.draw((x, y))

    def in_order(number: int) -> Batch:
        rows = order[torch.arange(number * 64, number * 64 + 64) % len(y)]
        return x[rows], y[rows]  # set-up bug: sorted_by_class

    lab.fit(model, batches if lab.fixed else in_order, lambda x, y: F.cross_entropy(model(x), y))


@broken(rules=("imbalanced-targets",), words=("imbalance", "rare"), nodes=("target",))
def one_class_in_a_hundred(lab: Lab) -> None:
    """One sample in a hundred is of the class that matters, and the loss does not make up for it.

    Source: SageMaker Debugger's ClassImbalance; taxonomy of Humbatova et al. (ICSE 2020), unbalanced data.
    """
    model = mlp(64, 48, 1)
    x, y = data.pixels()
    rare = (y == 0).float()
    keep = torch.ones(len(y), dtype=torch.bool)
    if not lab.fixed:
        keep[rare.nonzero()[14:, 0]] = False  # set-up bug: one_class_in_a_hundred
    weight = torch.tensor(9.0 if lab.fixed else 1.0)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(model(x)[:, 0], y, pos_weight=weight)

    lab.fit(model, data.draw((x[keep], rare[keep])), loss_of)


@broken(rules=("overfitting",), nodes=("loss",))
def too_few_examples(lab: Lab) -> None:
    """A wide net learns thirty images by heart, while the loss on others rises.

    Source: SageMaker Debugger's Overfit; UMLAUT (CHI 2021), overfitting.
    """
    model = mlp(64, 256, 10)
    x, y = data.pixels()
    few = (x, y) if lab.fixed else (x[:30], y[:30])  # set-up bug: too_few_examples
    unseen = data.draw(data.unseen_pixels())

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), y)

    lab.fit(
        model, data.draw(few), loss_of, lr=1e-2,
        after=lambda number: lab.validate(unseen, loss_of, number),
    )  # fmt: skip


@broken(rules=("target-scale",), nodes=("target", "loss"))
def targets_not_scaled(lab: Lab) -> None:
    """The targets of a regression lie between 25 and 346, and the net starts around zero.

    Source: DeepLocalize (ICSE 2021) and the taxonomy of Humbatova et al. (ICSE 2020), missing normalisation of targets.
    """
    model = mlp(10, 32, 1)
    table = data.diabetes() if lab.fixed else data.raw_diabetes()  # set-up bug: targets_not_scaled
    lab.fit(model, data.draw(table), lambda x, y: F.mse_loss(model(x), y), lr=1e-3)


@broken(rules=("extreme-batch", "loss-spike", "target-scale"), words=("target",), nodes=("target", "loss"), onset=60)
def one_corrupt_batch(lab: Lab) -> None:
    """The targets of step 60 are ten thousand times too large: a unit was mixed up in one file.

    Source: taxonomy of Humbatova et al. (ICSE 2020), corrupted data.
    """
    model = mlp(10, 32, 1)
    batches = data.draw(data.diabetes())

    def with_one_bad(number: int) -> Batch:
        x, y = batches(number)
        return (x, y * 1e4) if number == 60 else (x, y)  # set-up bug: one_corrupt_batch

    lab.fit(model, batches if lab.fixed else with_one_bad, lambda x, y: F.mse_loss(model(x), y), lr=1e-3)


@broken(rules=("constant-data",), nodes=("input",))
def black_images(lab: Lab) -> None:
    """The loader cannot decode the images and gives black ones.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong use of an image decoding API.
    """
    model = mlp(64, 48, 10)
    x, y = data.pixels()
    if not lab.fixed:
        x = torch.full_like(x, float(x.min()))  # set-up bug: black_images
    lab.fit(model, data.draw((x, y)), lambda x, y: F.cross_entropy(model(x), y))
