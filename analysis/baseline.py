"""What a loss is if nothing was learned: of an untrained net, and of the best constant answer."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.flow import Place
from stepscope.analysis.loss_inputs import OF_CLASSES, Comparison, comparisons
from stepscope.analysis.robust import mean
from stepscope.analysis.view import View


@dataclass(frozen=True)
class Baseline:
    """The loss of nothing learned.

    Attributes:
        loss, prediction: the places.
        start: what an untrained net should have.
        constant: what the best constant answer has, or more; NaN if it is not known.
        text: where ``start`` comes from, after "the 2.3 that".
        counts: over how many terms the loss may be a sum instead of a mean.
    """

    loss: Place
    prediction: Place
    start: float
    constant: float
    text: str
    is_classification: bool
    counts: tuple[int, ...]


def baselines(view: View, steps: Collection[int] | None = None) -> Iterator[Baseline]:
    """The baselines of all losses whose formula is known.

    Args:
        steps: in which steps the targets are looked at: all that train, unless given. Other kinds of steps may have
            harder targets.
    """
    for comparison in comparisons(view):
        baseline = _classification(comparison) or _regression(view, comparison, steps)
        if baseline is not None and baseline.start > 0:
            yield baseline


def _classification(comparison: Comparison) -> Baseline | None:
    shape = comparison.shape
    if comparison.operation in OF_CLASSES:
        classes = count_classes(shape, comparison.target_shape)
        start = math.log(max(classes, 1))
        text = f"log({classes}) gives for {classes} equally likely classes"
    elif comparison.operation in ("binary_cross_entropy_with_logits", "binary_cross_entropy"):
        start, text = math.log(2), "log(2) gives for a yes or no that is open"
    else:
        return None
    samples = shape[0] if len(shape) > 1 else 1
    counts = (samples, samples * math.prod(shape[2:]), math.prod(shape))
    return Baseline(comparison.loss, comparison.prediction, start, start, text, True, counts)


def count_classes(shape: tuple[int, ...], target_shape: tuple[int, ...]) -> int:
    """How many classes scores of a shape tell apart: texts ``(batch, time, classes)`` are flattened for the loss."""
    if len(shape) < 2:
        return (shape or (1,))[0]
    is_last = len(shape) > 2 and target_shape in (shape[:-1], (math.prod(shape[:-1]),))
    return shape[-1] if is_last and target_shape != (shape[0], *shape[2:]) else shape[1]


def _regression(view: View, comparison: Comparison, steps: Collection[int] | None) -> Baseline | None:
    if comparison.operation != "mse_loss" or comparison.target is None:
        return None
    if math.prod(comparison.shape) != math.prod(comparison.target_shape):
        return None
    target = view.history(comparison.target.node, role=comparison.target.role, training=steps is None)
    looked_at = slice(None) if steps is None else np.isin(target.steps, list(steps))
    centre, spread = target.of("mean")[looked_at], target.of("std")[looked_at]
    if not len(centre):
        return None
    start = mean(centre[:3] ** 2 + spread[:3] ** 2)
    text = "an output of 0 would give for these targets"
    constant = mean(spread**2)
    counts = (math.prod(comparison.shape), *comparison.shape[1:])
    return Baseline(comparison.loss, comparison.prediction, start, constant, text, False, counts)


def is_sum(start: float, baseline: Baseline) -> bool:
    """Whether the loss is as large as a sum over the samples, or over all outputs, would be."""
    ratio = start / baseline.start
    return any(0.6 < ratio / count < 1.7 for count in baseline.counts if count > 2)
