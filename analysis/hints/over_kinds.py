"""What is different in one kind of step: sequences of one length, the test set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis.hints.curves import FEWEST, Curve, curves, loss_curve
from stepscope.analysis.hints.hint import Candidate, Hint
from stepscope.analysis.hints.ranks import Vector, rank_biserial, ranks
from stepscope.store import Trial

_MOST_KINDS = 12
_FEWEST_OF_A_KIND = 4
_NEIGHBOURS = 10
"""A value is compared with the median of so many before it and as many after it, so that no trend counts."""


def by_kind(trial: Trial) -> Iterator[Candidate]:
    """Relations with the kinds of a trial, if it has several."""
    if not 2 <= len(trial.kinds) <= _MOST_KINDS:
        return
    kinds = dict(zip(trial.steps.tolist(), trial.step_kinds, strict=True))
    loss = loss_curve(trial, None)
    for curve in (*([loss] if loss is not None else []), *curves(trial, None)):
        yield from _relations(curve, kinds)


def _relations(curve: Curve, kinds: Mapping[int, str]) -> Iterator[Candidate]:
    own = np.array([kinds.get(step, "") for step in curve.steps.tolist()], dtype=object)
    known: NDArray[np.bool_] = own != ""  # while training goes on, a curve may have steps that came since
    values, own = curve.values[known], own[known]
    if not len(values) or np.ptp(values) == 0:
        return
    ranked = ranks(_without_trend(values))
    present = [kind for kind in dict.fromkeys(own.tolist()) if (own == kind).sum() >= _FEWEST_OF_A_KIND]
    for kind in present:
        inside: NDArray[np.bool_] = own == kind
        if (~inside).sum() < FEWEST - _FEWEST_OF_A_KIND:
            continue
        strength, probability = rank_biserial(ranked, inside)
        hint = Hint("kind", curve.node, curve.quantity, curve.statistic, strength, len(ranked), group=kind)
        yield Candidate(hint, probability)


def _without_trend(values: Vector) -> Vector:
    """Each value minus the median of its neighbours in time, itself included."""
    padded = np.pad(values, _NEIGHBOURS, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * _NEIGHBOURS + 1)
    result: Vector = values - np.nanmedian(windows, axis=1)
    return result
