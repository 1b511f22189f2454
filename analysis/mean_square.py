"""Whether a loss is the mean square of the distance between two places, whatever code computes it."""

from __future__ import annotations

import numpy as np

from stepscope.analysis.history import Values
from stepscope.analysis.loss_inputs import Comparison
from stepscope.analysis.neurons import neurons_of
from stepscope.analysis.view import View
from stepscope.store import Step

_STEPS, _FEWEST = 3, 8
_ROUNDING = 1e-3


def is_mean_square(view: View, comparison: Comparison) -> bool:
    """Whether the gradient of every kept number of the prediction is in proportion to its distance to the target.

    Only a square has such a slope, and only if nothing was cut out, averaged or moved on the way to the loss. A target
    of one number for each sample is held against all numbers of that sample.
    """
    steps = view.training[:: max(1, len(view.training) // _STEPS)][:_STEPS]
    return bool(steps) and all(_is_proportional(step, comparison) for step in steps)


def _is_proportional(step: Step, comparison: Comparison) -> bool:
    found = _distances(step, comparison)
    if found is None:
        return False
    distance, slope = found
    size = float(np.abs(distance).max())
    if distance.size < _FEWEST or not np.ptp(distance) > 0.01 * size or not np.isfinite(size):
        return False
    factor = float((slope * distance).sum() / (distance**2).sum())
    return factor > 0 and bool(np.all(np.abs(slope - factor * distance) <= _ROUNDING * factor * size))


def _distances(step: Step, comparison: Comparison) -> tuple[Values, Values] | None:
    """How far the kept numbers of a prediction are from their targets, and their gradients."""
    if comparison.target is None:
        return None
    given, slope = neurons_of(step, comparison.prediction), neurons_of(step, comparison.prediction, "gradient")
    wanted = neurons_of(step, comparison.target)
    if given is None or slope is None or wanted is None or given.samples.shape != slope.samples.shape:
        return None
    one, other = given.samples, wanted.samples
    fits = (other.shape == one.shape and given.total == wanted.total) or other.shape == (len(one), 1)
    return (one.astype(np.float64) - other, slope.samples.astype(np.float64)) if fits else None
