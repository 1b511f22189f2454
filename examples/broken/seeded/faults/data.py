"""Faults of the inputs, and of which rows are drawn."""

from __future__ import annotations

from collections.abc import Callable

import torch

from stepscope.examples.broken.seeded.fault import fault
from stepscope.examples.broken.seeded.rehearsal import Batch
from stepscope.examples.broken.seeded.training import Training

Change = Callable[[int, torch.Tensor], torch.Tensor]


def change_part(training: Training, index: int, change: Change, *, everywhere: bool = False) -> None:
    """Change one part of each batch, by the number of the batch."""

    def changed(number: int, batch: Batch) -> Batch:
        return *batch[:index], change(number, batch[index]), *batch[index + 1 :]

    training.change_batches(changed, everywhere=everywhere)


def _change_inputs(training: Training, change: Change, *, everywhere: bool = False) -> tuple[str, ...] | None:
    """Change the inputs, where they are numbers (not tokens) of several samples."""
    x = training.batches(0)[0]
    if not x.is_floating_point() or x.dim() < 2 or len(x) < 2:
        return None
    change_part(training, 0, change, everywhere=everywhere)
    return training.inputs()


def has_rows(training: Training, *, more_than: int) -> bool:
    """Whether all parts of a batch have as many rows, and more than some."""
    lengths = {len(part) if part.dim() else 0 for part in training.batches(0)}
    return len(lengths) == 1 and min(lengths) > more_than


def _change_rows(training: Training, rows: Callable[[int, Batch], torch.Tensor]) -> tuple[str, ...] | None:
    """Let each batch have others of its rows, if all of its parts have as many."""
    if not has_rows(training, more_than=3):
        return None

    def chosen(number: int, batch: Batch) -> Batch:
        index = rows(number, batch)
        return tuple(part[index] for part in batch)

    training.change_batches(chosen)
    return (*training.inputs(), "target")


def random_of(number: int) -> torch.Generator:
    """Random numbers that belong to a batch."""
    return torch.Generator().manual_seed(number)


@fault(rules=("input-scale",))
def inputs_not_normalised(training: Training) -> tuple[str, ...] | None:
    """The inputs are not divided by 255, here and where the model is used.

    Source: SageMaker Debugger, rule NotNormalizedImages; UMLAUT (CHI 2021); Taxonomy (ICSE 2020), preprocessing.
    """
    return _change_inputs(training, lambda _, x: 255 * x, everywhere=True)


@fault(rules=("input-scale",))
def inputs_far_from_zero(training: Training) -> tuple[str, ...] | None:
    """The mean of the inputs is not subtracted, which is a hundred times their spread.

    Source: DeepLocalize (ICSE 2021) and UMLAUT (CHI 2021), inputs that are not normalised.
    """
    return _change_inputs(training, lambda _, x: x + 100 * _spread(x), everywhere=True)


def _spread(x: torch.Tensor) -> float:
    return max(x.std().item(), 1e-3)


@fault(rules=("extreme-features", "input-scale"))
def a_feature_enormous(training: Training) -> tuple[str, ...] | None:
    """One column of the inputs has another unit: it is ten thousand times as large as the others.

    Source: Taxonomy (ICSE 2020), missing preprocessing (normalisation); DeepDiagnosis (Wardat et al., ICSE 2022).
    """
    width = training.batches(0)[0].shape[-1]
    column = training.random.randrange(width or 1)

    def enlarge(_: int, x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[..., column] = (x[..., column] + 1) * 1e4
        return x

    return _change_inputs(training, enlarge, everywhere=True) if width > 1 else None


@fault(rules=("constant-data",))
def inputs_zero(training: Training) -> tuple[str, ...] | None:
    """The inputs are zero, as when files cannot be decoded.

    Source: SageMaker Debugger, rule AllZero; Taxonomy (ICSE 2020), wrong preprocessing.
    """
    return _change_inputs(training, lambda _, x: torch.zeros_like(x))


@fault(rules=("constant-data", "duplicate-samples"))
def inputs_all_the_same(training: Training) -> tuple[str, ...] | None:
    """All inputs of a batch are those of its first sample, while the targets differ.

    Source: Taxonomy (ICSE 2020), training data quality; SageMaker Debugger, rule TensorVariance.
    """
    return _change_inputs(training, lambda _, x: x[:1].expand_as(x).clone())


@fault(rules=("unrelated-targets",))
def inputs_drowned_in_noise(training: Training) -> tuple[str, ...] | None:
    """Noise is added to the inputs that is ten times as large as they are.

    Source: DeepCrime (ISSTA 2021), operator TAN (add noise to training data); DeepMutation, NP (noise perturbation).
    """

    def disturb(number: int, x: torch.Tensor) -> torch.Tensor:
        return x + 10 * _spread(x) * torch.randn(x.shape, generator=random_of(number), dtype=x.dtype)

    return _change_inputs(training, disturb)


@fault(rules=("non-finite",))
def missing_values(training: Training) -> tuple[str, ...] | None:
    """From some step on, a sample of the batch has a value that is missing (NaN).

    Source: Taxonomy (ICSE 2020), training data quality; TensorFlow forum and DeepLocalize (ICSE 2021), NaN in inputs.
    """
    first = training.random.randrange(20, 80)

    def lose(number: int, x: torch.Tensor) -> torch.Tensor:
        if number < first:
            return x
        x = x.clone()
        x.view(-1)[torch.randint(x.numel(), (1,), generator=random_of(number))] = torch.nan
        return x

    return _change_inputs(training, lambda number, x: lose(number, x.contiguous()))


@fault(rules=("unused-embeddings", "constant-data"))
def tokens_unknown(training: Training) -> tuple[str, ...] | None:
    """Almost every token is replaced by the one that stands for unknown ones.

    Source: Taxonomy (ICSE 2020), wrong preprocessing of text; SageMaker Debugger, rule NLPSequenceRatio.
    """
    x = training.batches(0)[0]
    if x.dtype != torch.int64 or x.dim() < 2 or training.rehearsal().target() is None:
        return None

    def forget(number: int, x: torch.Tensor) -> torch.Tensor:
        return x.masked_fill(torch.rand(x.shape, generator=random_of(number)) < 0.95, 0)

    change_part(training, 0, forget)
    return training.inputs()


@fault(rules=("repeated-batch",))
def hardly_any_data(training: Training) -> tuple[str, ...] | None:
    """Eight samples are left of all the data, and they are seen in every step.

    Source: DeepCrime (ISSTA 2021), operator TRD (remove training data); SageMaker Debugger, rule Overfit.
    """
    if not has_rows(training, more_than=8):
        return None
    kept = tuple(part[:8] for part in training.batches(0))
    training.batches = lambda number: tuple(part.clone() for part in kept)
    return (*training.inputs(), "target")


@fault(rules=("duplicate-samples", "constant-data"))
def a_sample_fills_the_batch(training: Training) -> tuple[str, ...] | None:
    """Each batch is one sample, repeated.

    Source: DeepMutation (ISSRE 2018), operator DR (data repetition); Taxonomy (ICSE 2020), wrong selection of data.
    """
    return _change_rows(training, lambda _, batch: torch.zeros(len(batch[0]), dtype=torch.int64))


@fault(rules=("small-batch-norm", "tiny-batch"))
def batch_of_two(training: Training) -> tuple[str, ...] | None:
    """The batches have two samples each.

    Source: DeepCrime (ISSTA 2021), operator HBS (batch size); Taxonomy (ICSE 2020), batch size too small.
    """
    return _change_rows(training, lambda _, batch: torch.arange(2))
