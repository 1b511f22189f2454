"""Scores that a loss takes for shares of a whole: it sees them through sums alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis.bounds import maker
from stepscope.analysis.flow import Place
from stepscope.analysis.loss_inputs import comparisons
from stepscope.analysis.neurons import neurons_of
from stepscope.analysis.units import unit_of
from stepscope.analysis.view import View
from stepscope.store import Step

_LINEAR = frozenset(["linear", "addmm", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d"])
_STEPS, _FEWEST, _SAME, _MOST = 5, 12, 1e-3, 0.8
Rows = NDArray[np.float64]


def shares_without_sigmoid(view: View) -> Iterator[Place]:
    """Predictions made by a layer whose gradient has two values in each sample, and others in each sample, or step."""
    steps = view.training[:: max(1, len(view.training) // _STEPS)][:_STEPS]
    for place in dict.fromkeys(comparison.prediction for comparison in comparisons(view)):
        made = view.flow.vertices[maker(view, place)].operation
        if len(steps) == _STEPS and made in _LINEAR:
            pairs = [pair for step in steps for pair in _pairs(view, step, place) or [(0.0, 0.0)]]
            if (
                np.mean([_is_unequal(pair) for pair in pairs]) >= _MOST
                and len({f"{pair[0]:.2e}" for pair in pairs}) >= _STEPS
            ):
                yield place


def _pairs(view: View, step: Step, place: Place) -> list[tuple[float, float]] | None:
    """For each sample and channel that has two values: both; None if one has more, or less can be known."""
    shape, value, gradient = view.shape(place, step), neurons_of(step, place), neurons_of(step, place, "gradient")
    if shape is None or len(shape) < 2 or value is None or gradient is None:
        return None
    count = gradient.samples.shape[1]
    unit = unit_of(np.arange(count) * gradient.total // max(count, 1), shape[1:]) if len(shape) > 2 else np.zeros(count)
    found = []
    for scores, slopes in zip(value.samples.astype(np.float64), gradient.samples.astype(np.float64), strict=True):
        for one in np.unique(unit):
            mine = unit == one
            if mine.sum() >= _FEWEST and np.std(scores[mine]) > _SAME * np.abs(scores[mine]).max():
                levels = _levels(slopes[mine])
                if len(levels) > 2:
                    return None
                found += [(levels[0], levels[1])] if len(levels) == 2 else []
    return found or None


def _levels(slopes: Rows) -> list[float]:
    """The distinct values, up to rounding."""
    ordered = np.sort(slopes)
    gaps = np.flatnonzero(np.diff(ordered) > _SAME * np.abs(ordered).max())
    return [float(part.mean()) for part in np.split(ordered, gaps + 1)]


def _is_unequal(pair: tuple[float, float]) -> bool:
    """Whether both values differ in size, and none is zero: an absolute error has the same on both sides."""
    one, two = (abs(value) for value in pair)
    return min(one, two) > 0 and abs(one - two) > 0.01 * max(one, two)
