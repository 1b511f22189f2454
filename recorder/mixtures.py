"""Samples that are mixed with others, and their losses by the wrong shares; on the writer's thread."""

from __future__ import annotations

from collections.abc import Iterator

from stepscope.recorder.job import StepJob
from stepscope.recorder.loss_functions import LOSS_FUNCTIONS
from stepscope.recorder.loss_walk import FACTOR

SWAPPED = "swapped shares"
_REORDERS = frozenset(["getitem", "flip", "roll", "index_select"])
_SAME, _APART = 1e-4, 1e-2


def find_swapped_shares(job: StepJob) -> Iterator[int]:
    """Where samples and their losses are mixed with those of others, by a share and by what it leaves."""
    mixtures = [(node, *mixed) for node in range(len(job.parents)) if (mixed := _mixed(job, node)) is not None]
    shares = [share for _, share, is_loss in mixtures if not is_loss]
    for node, share, is_loss in mixtures:
        if is_loss and shares and all(abs(one - share) > _APART and abs(1 - one - share) < _SAME for one in shares):
            yield node


def _mixed(job: StepJob, node: int) -> tuple[float, bool] | None:
    """Of a sum of two products with numbers, the own share of a sample, or of its loss; None of any other node."""
    parents, marks = job.parents[node], job.marks
    if job.operations[node] not in ("add", "iadd") or len(parents) != 2:
        return None
    if not all(marks.get(parent, "").startswith(FACTOR) for parent in parents):
        return None
    one, two = (float(marks[parent].removeprefix(FACTOR)) for parent in parents)
    own, others = ([*job.parents[parent], *_compared(job, parent)] for parent in parents)
    is_loss = any(job.operations[factor] in LOSS_FUNCTIONS for parent in parents for factor in job.parents[parent])
    if abs(one + two - 1) > _SAME:
        return None
    if _reorders(job, own, others):
        return one, is_loss
    return (two, is_loss) if _reorders(job, others, own) else None


def _compared(job: StepJob, product: int) -> list[int]:
    """What the loss compares that a product weighs."""
    losses = (factor for factor in job.parents[product] if job.operations[factor] in LOSS_FUNCTIONS)
    return [side for loss in losses for side in job.parents[loss]]


def _reorders(job: StepJob, own: list[int], others: list[int]) -> bool:
    """Whether one of the others has the samples of an own one in another order."""
    return any(job.operations[one] in _REORDERS and job.parents[one][0] in own for one in others if job.parents[one])
