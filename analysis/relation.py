"""Whether anything in some inputs tells their targets: neighbours that agree, or a feature that goes with them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis.flow import Place
from stepscope.analysis.neurons import neurons_of
from stepscope.store import Step

Matrix = NDArray[np.float64]

_DEVIATIONS = 3.0
"""How many standard deviations above chance count as a relation."""


def gather_pairs(steps: list[Step], one: Place, two: Place, *, each_once: bool = True) -> tuple[Matrix, Matrix]:
    """``(n, neurons)`` of both places: the kept samples of all steps, each different one once."""
    first, second = [], []
    for step in steps:
        a, b = neurons_of(step, one), neurons_of(step, two)
        if a is not None and b is not None and len(a.samples) == len(b.samples) == len(step.samples):
            first.append(a.samples.astype(np.float64))
            second.append(b.samples.astype(np.float64))
    if not first or len({x.shape[1] for x in first}) > 1 or len({y.shape[1] for y in second}) > 1:
        return np.empty((0, 0)), np.empty((0, 0))
    inputs, targets = np.concatenate(first), np.concatenate(second)
    good = np.isfinite(inputs).all(1) & np.isfinite(targets).all(1)
    inputs, targets = inputs[good], targets[good]
    if not each_once:
        return inputs, targets
    _, index = np.unique(inputs, axis=0, return_index=True)
    return inputs[np.sort(index)], targets[np.sort(index)]


def are_related(inputs: Matrix, targets: Matrix) -> bool:
    """Whether neighbours have targets that are nearer than those of others, or a feature goes with a target."""
    x = _standardised(inputs)
    y = _standardised(targets)
    return _neighbours_agree(x, y) or _features_go_with(x, y)


def go_together(inputs: Matrix, targets: Matrix) -> bool:
    """Whether a feature goes with a target: all there is to see in inputs of a few different values."""
    return _features_go_with(_standardised(inputs), _standardised(targets))


def _neighbours_agree(x: Matrix, y: Matrix) -> bool:
    distances = (x**2).sum(1)[:, None] + (x**2).sum(1)[None] - 2 * x @ x.T
    np.fill_diagonal(distances, np.inf)
    nearest = np.argmin(distances, axis=1)
    differences = ((y[:, None] - y[None]) ** 2).sum(-1)
    own = differences[np.arange(len(y)), nearest]
    usual, spread = differences.mean(1), differences.std()
    return bool((usual - own).mean() > _DEVIATIONS * max(float(spread), 1e-12) / math.sqrt(len(y)))


def _features_go_with(x: Matrix, y: Matrix) -> bool:
    correlation = np.abs(x.T @ y) / len(x)
    chance = math.sqrt(2 * math.log(max(2.0, 20.0 * correlation.size)) / len(x))
    return bool(correlation.max(initial=0.0) > chance)


def _standardised(values: Matrix) -> Matrix:
    spread = values.std(0)
    kept = spread > 0
    standard: Matrix = (values[:, kept] - values[:, kept].mean(0)) / spread[kept]
    return standard
