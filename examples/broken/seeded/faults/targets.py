"""Faults of the labels and other targets, and of how often each class is seen."""

from __future__ import annotations

import torch

from stepscope.examples.broken.seeded.fault import fault
from stepscope.examples.broken.seeded.faults.data import Change, change_part, has_rows, random_of
from stepscope.examples.broken.seeded.rehearsal import Batch
from stepscope.examples.broken.seeded.training import Training

TARGET = ("target",)


def _change_targets(training: Training, change: Change) -> tuple[str, ...] | None:
    """Change what the prediction is compared with, where it is found in the batches."""
    index = training.rehearsal().target()
    if index is None or len(training.batches(0)[index]) < 2:
        return None
    change_part(training, index, change)
    return TARGET


def _labels(training: Training) -> tuple[int, int] | None:
    """Which part of the batch are the labels of the samples, and how many classes there are; None if there are none."""
    rehearsal = training.rehearsal()
    index = rehearsal.target()
    if index is None or rehearsal.batch[index].dim() != 1:
        return None
    labels = torch.cat([training.batches(number)[index] for number in range(10)])
    classes = labels.unique()
    whole = torch.equal(classes, torch.arange(len(classes)).to(classes))
    return (index, len(classes)) if whole and 2 <= len(classes) <= 20 else None


@fault(rules=("unrelated-targets", "labels-of-others"))
def targets_shuffled(training: Training) -> tuple[str, ...] | None:
    """The targets are shuffled, and the inputs are not.

    Source: DeepCrime (ISSTA 2021), operator TCL (change labels); DeepMutation (ISSRE 2018), DF (data shuffle).
    """
    return _change_targets(training, lambda number, y: y[torch.randperm(len(y), generator=random_of(number))])


@fault(rules=("unrelated-targets", "labels-of-others"))
def targets_of_the_next_sample(training: Training) -> tuple[str, ...] | None:
    """Inputs and targets are out of step: each sample has the target of the next.

    Source: Taxonomy (ICSE 2020), wrong labels; training data and labels not aligned.
    """
    return _change_targets(training, lambda _, y: y.roll(-1, dims=0))


@fault(rules=("constant-data", "imbalanced-targets"))
def targets_all_the_same(training: Training) -> tuple[str, ...] | None:
    """All samples have the same target.

    Source: DeepCrime (ISSTA 2021), operator TCL (change labels), of all of the data.
    """
    first = training.random.randrange(4)

    def equal(_: int, y: torch.Tensor) -> torch.Tensor:
        return sound[first : first + 1].expand_as(y).clone()

    index = training.rehearsal().target()
    if index is None or len(training.batches(0)[index]) <= first:
        return None
    sound = training.batches(0)[index]
    return _change_targets(training, equal)


@fault(rules=("unrelated-targets",))
def most_labels_wrong(training: Training) -> tuple[str, ...] | None:
    """Nine of ten labels are drawn at random.

    Source: DeepMutation (ISSRE 2018), operator LE (label error); DeepCrime (ISSTA 2021), operator TCL.
    """
    found = _labels(training)
    if found is None:
        return None
    index, classes = found

    def mistake(number: int, y: torch.Tensor) -> torch.Tensor:
        others = torch.randint(classes, y.shape, generator=random_of(number)).to(y)
        return torch.where(torch.rand(y.shape, generator=random_of(number + 1)) < 0.9, others, y)

    change_part(training, index, mistake)
    return TARGET


@fault(words=("shifted",))
def some_files_count_classes_from_one(training: Training) -> tuple[str, ...] | None:
    """In every other batch the labels are shifted by a class.

    Source: DeepMutation (ISSRE 2018), operator LE (label error); Taxonomy (ICSE 2020), wrong labels.
    """
    found = _labels(training)
    if found is None:
        return None
    index, classes = found
    change_part(training, index, lambda number, y: (y + number % 2) % classes)
    return TARGET


@fault(rules=("target-scale",))
def targets_not_scaled(training: Training) -> tuple[str, ...] | None:
    """The targets of a regression are a thousand times as large as they should be.

    Source: UMLAUT (CHI 2021); DeepDiagnosis (ICSE 2022), range of the labels; Taxonomy (ICSE 2020), normalisation.
    """
    rehearsal = training.rehearsal()
    if not rehearsal.is_a_regression():
        return None
    index = rehearsal.target()
    if index is None or not rehearsal.batch[index].is_floating_point():
        return None
    return _change_targets(training, lambda _, y: 1000 * y)


def _mostly(training: Training, wanted: int, share: float, batch: Batch, index: int, number: int) -> Batch:
    """The batch with most of its rows drawn from those of one class."""
    of_class = (batch[index] == wanted).nonzero()[:, 0]
    if not len(of_class):
        return batch
    length = len(batch[index])
    drawn = of_class[torch.randint(len(of_class), (length,), generator=random_of(number))]
    rows = torch.where(torch.rand(length, generator=random_of(number + 1)) < share, drawn, torch.arange(length))
    return tuple(part[rows] for part in batch)


@fault(rules=("imbalanced-targets", "constant-data"))
def one_class_in_almost_every_row(training: Training) -> tuple[str, ...] | None:
    """Almost all samples are of one class.

    Source: DeepCrime (ISSTA 2021), operator TUD (unbalance training data); SageMaker Debugger, rule ClassImbalance.
    """
    found = _labels(training)
    if found is None or not has_rows(training, more_than=1):
        return None
    index, classes = found
    wanted = training.random.randrange(classes)
    training.change_batches(lambda number, batch: _mostly(training, wanted, 0.98, batch, index, number))
    return (*training.inputs(), *TARGET)


@fault(rules=("constant-data",), words=("sorted", "shuffle"))
def sorted_by_class(training: Training) -> tuple[str, ...] | None:
    """The data are sorted by class and not shuffled, so that a batch has one class only.

    Source: Taxonomy (ICSE 2020), training data not shuffled; Karpathy's list of common mistakes (2018).
    """
    found = _labels(training)
    if found is None or not has_rows(training, more_than=1):
        return None
    index, classes = found
    each = max(1, 150 // classes)
    training.change_batches(
        lambda number, batch: _mostly(training, number // each % classes, 1.0, batch, index, number)
    )
    return (*training.inputs(), *TARGET)
