"""What changes from step to step together with the loss, or one recorded step before it; and before its spikes.

Over a training run nearly everything has a trend, and trends correlate with each other without any meaning. So changes
from one recorded step to the next are compared, not levels; and as these calm down together, too, what they have in
common with the time is taken out (partial rank correlation).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis.hints.curves import FEWEST, Curve, aligned, curves, loss_curve, main_kind
from stepscope.analysis.hints.hint import Candidate, Hint, Relation
from stepscope.analysis.hints.ranks import Vector, partial_of_ranks, probability_of_correlation, rank_biserial, ranks
from stepscope.store import Trial

_SPIKE = 6.0
"""A spike is a rise of the loss by more than so many median absolute deviations of its changes."""
_FEWEST_SPIKES = 3


def with_the_loss(trial: Trial) -> Iterator[Candidate]:
    """Relations with the loss over the steps of the trial's main kind."""
    if not trial.kinds:
        return
    kind = main_kind(trial)
    loss = loss_curve(trial, kind)
    if loss is None:
        return
    for curve in curves(trial, kind):
        mine, theirs = aligned(curve, loss)
        if len(mine) >= FEWEST + 2:
            yield from _relations(curve, np.diff(mine), np.diff(theirs))


def _relations(curve: Curve, mine: Vector, loss: Vector) -> Iterator[Candidate]:
    sides: tuple[tuple[Relation, Vector, Vector], ...] = (("with", mine, loss), ("before", mine[:-1], loss[1:]))
    for relation, a, b in sides:
        strength = partial_of_ranks(ranks(a), ranks(b))
        if not math.isnan(strength):
            yield _candidate(relation, curve, strength, len(a), probability_of_correlation(strength, len(a)))
    before = _before_spikes(loss)
    if before.sum() >= _FEWEST_SPIKES and np.ptp(mine) > 0:
        strength, probability = rank_biserial(ranks(mine[:-1]), before)
        yield _candidate("spike", curve, strength, len(mine) - 1, probability)


def _before_spikes(changes: Vector) -> NDArray[np.bool_]:
    """For each change but the last, whether the next one is a spike."""
    middle = np.median(changes)
    spread = np.median(np.abs(changes - middle))
    spikes: NDArray[np.bool_] = (
        changes[1:] > middle + _SPIKE * spread if spread > 0 else np.zeros(len(changes) - 1, bool)
    )
    return spikes


def _candidate(relation: Relation, curve: Curve, strength: float, count: int, probability: float) -> Candidate:
    return Candidate(Hint(relation, curve.node, curve.quantity, curve.statistic, strength, count), probability)
