"""Convolutional networks that tell classes of pictures, as reported with their mistakes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Batches, Lab

_Batch = tuple[torch.Tensor, ...]
_LossOf = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _unseen() -> data.Table:
    x, y = data.unseen_pixels()
    return x.unflatten(1, (1, 8, 8)), y


def _validated(lab: Lab, model: nn.Module, loss_of: _LossOf, unseen: Batches) -> Callable[[int], None]:
    def after(number: int) -> None:
        model.eval()
        lab.validate(unseen, loss_of, number)
        model.train()

    return after


def _three() -> data.Table:
    x, y = data.images()
    return x[y < 3], y[y < 3]


@broken(
    rules=("unreachable-targets", "classes-as-numbers"),
    words=("numbers of classes", "number of classes", "above 1", "between 0 and 1"),
    nodes=("model", "target", "loss"),
)  # fmt: skip
def one_logistic_output_for_three_classes(lab: Lab) -> None:
    """Three classes, 0, 1 and 2, are asked of a single logistic output by the binary cross-entropy.

    Source: Stack Overflow (newbedev), CNN with keras, accuracy not improving.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32, 32),
        nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 3 if lab.fixed else 1),
        nn.LogSoftmax(dim=1) if lab.fixed else nn.Sigmoid(),
    )  # fmt: skip
    optimizer = torch.optim.RMSprop(model.parameters(), 1e-3)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if lab.fixed:
            return F.nll_loss(model(x), y)
        chance = model(x)[:, 0].clamp(1e-7, 1 - 1e-7)
        return -(y * chance.log() + (1 - y) * (1 - chance).log()).mean()  # bug: one_logistic_output_for_three_classes

    lab.fit(model, data.draw(_three(), 32), loss_of, optimizer)


def _mostly_threes() -> tuple[data.Table, torch.Tensor]:
    """Noisy digits, of which nearly all are threes, and weights that make up for that."""
    x, y = data.images()
    kept = (y == 3) | (torch.arange(len(y)) % 45 == 0)
    x, y = x[kept], y[kept]
    x = x + 0.9 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    count = y.bincount(minlength=10).clamp(min=1)
    return (x, y), len(y) / (10.0 * count)


@broken(rules=("imbalanced-targets",), words=("imbalanc", "rare"), nodes=("target", "loss"))
def nearly_all_pictures_are_threes(lab: Lab) -> None:
    """One class has nearly all pictures, and no weight makes up for it: the network calls everything that.

    Source: decodetrail, why does my CNN predict only one class no matter what image I give it.
    """
    table, weights = _mostly_threes()
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip
    weight = weights if lab.fixed else None

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), y, weight)  # bug: nearly_all_pictures_are_threes

    lab.fit(model, data.draw(table), loss_of, lr=2e-3)


@broken(
    rules=("broadcast-target", "classes-as-numbers", "unreachable-targets"),
    words=("broadcast", "numbers of classes", "cross-entropy"),
    nodes=("loss", "target", "model"),
)  # fmt: skip
def ten_outputs_against_one_number(lab: Lab) -> None:
    """The squared error compares each of ten outputs with the number of the class, in place of a log-likelihood.

    Source: mlpack/examples issue 105, MNIST CNN example not running properly.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.LeakyReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 3, padding=1), nn.LeakyReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 10), nn.LogSoftmax(dim=1),
    )  # fmt: skip

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if lab.fixed:
            return F.nll_loss(model(x), y)
        return (model(x) - (y + 1.0)[:, None]).square().mean()  # bug: ten_outputs_against_one_number

    lab.fit(model, data.draw(data.images(), 50), loss_of)


class _BatchNorm(nn.BatchNorm2d):
    """A batch normalisation that can be frozen, and is told to train if it is not."""

    def __init__(self, features: int, *, told: bool) -> None:
        super().__init__(features)
        self.told = told

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        training = True if self.told else self.training
        return F.batch_norm(  # bug: norms_told_to_train_in_evaluation
            x, self.running_mean, self.running_var, self.weight, self.bias, training, self.momentum or 0.0, self.eps
        )


class _Block(nn.Module):
    """Two convolutions and what goes around them."""

    def __init__(self, width: int, *, told: bool) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.norm_first, self.norm_second = _BatchNorm(width, told=told), _BatchNorm(width, told=told)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norm_first(self.first(x)))
        return F.relu(x + self.norm_second(self.second(y)))


def _folder_by_folder(number: int) -> _Batch:
    """Unseen digits of one class, as a loader gives them that does not shuffle."""
    x, y = _unseen()
    digit = (number // 30) % 10
    return x[y == digit], y[y == digit]


@broken(
    rules=("batch-norm-mode",), words=("training mode", "batch statistics"),
    nodes=("model.1.norm_first", "model.1.norm_second", "model.2.norm_first", "model.2.norm_second"), onset=30,
)  # fmt: skip
def norms_told_to_train_in_evaluation(lab: Lab) -> None:
    """Normalisations that are not frozen are called with training=True always, so also in the validation.

    Source: broadinstitute/keras-resnet pull request 47, behaviour of unfrozen BatchNormalization layer.
    """
    told = not lab.fixed
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), _Block(16, told=told), _Block(16, told=told), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), y)

    after = _validated(lab, model, loss_of, _folder_by_folder)
    lab.fit(model, data.draw(data.images(), 32), loss_of, lr=2e-3, after=after)


def _pretrained() -> nn.Sequential:
    """A body that learned to tell bright digits, and keeps their statistics."""
    body = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
    )  # fmt: skip
    head = nn.Linear(128, 10)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], 3e-3)
    batches = data.draw(data.images())
    for number in range(80):
        x, y = batches(number)
        optimizer.zero_grad()
        F.cross_entropy(head(body(x)), y).backward()
        optimizer.step()
    return body.requires_grad_(False)


def _dim(table: data.Table) -> data.Table:
    """The same pictures as negatives, darker and with less contrast."""
    x, y = table
    return -0.4 * x - 1.0, y // 2


@broken(rules=("batch-norm-mode",), words=("running", "batch statistics"), nodes=("model.0.1", "model.0.5"), onset=30)
def frozen_norms_train_on_the_batch(lab: Lab) -> None:
    """Frozen normalisations use the batch while the head is trained, but in evaluation what they were pretrained with.

    Source: keras-team/keras issue 10214, extremely low accuracy after fine-tuning InceptionV3 (not overfitting).
    """
    body = _pretrained()
    model = nn.Sequential(body, nn.Linear(128, 5))
    norms = [module for module in body if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 0.0
    optimizer = torch.optim.RMSprop(model[1].parameters(), 3e-3)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        for norm in norms:
            norm.train(model.training and not lab.fixed)  # set-up bug: frozen_norms_train_on_the_batch
        return F.cross_entropy(model(x), y)

    after = _validated(lab, model, loss_of, data.draw(_dim(_unseen()), 200))
    longer = replace(lab, steps=200)
    longer.fit(model, data.draw(_dim(data.images())), loss_of, optimizer, after=after)


@broken(
    rules=("activation-before-loss", "flat-scores", "unreachable-targets"), words=("softmax",),
    nodes=("model", "model.11", "loss"),
)  # fmt: skip
def classes_through_two_softmaxes(lab: Lab) -> None:
    """The network ends with a softmax, and the cross-entropy takes the softmax of that once more.

    Source: PyTorch forum 43814, cross entropy loss is not decreasing.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(256, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
        nn.Identity() if lab.fixed else nn.Softmax(dim=1),  # set-up bug: classes_through_two_softmaxes
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), y)

    after = _validated(lab, model, loss_of, data.draw(_unseen(), 200))
    lab.fit(model, data.draw(data.images(), 32), loss_of, optimizer, after=after)
