"""Gradients that are carried on from step to step, in nets without biases whose sums would prove it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis.curves import fallen
from stepscope.analysis.flow import Place
from stepscope.analysis.neurons import neurons_of
from stepscope.analysis.occurrences import occurrences
from stepscope.analysis.parameters import trainable
from stepscope.analysis.robust import median
from stepscope.analysis.view import View
from stepscope.store import Step
from stepscope.store.records import HELD_GRADIENTS, OPTIMIZER_STEP

_LEAST, _MOST_STEPS = 10, 40
_TURN = 0.8
"""The cosine of gradients two steps apart: of fresh batches it is near 0, in a sum of all so far near 1."""
_GROWTH = 2.0
_MOSTLY = 0.8
_FALL = 0.6
"""A loss of which more is gone says that steps go the right way."""


def carried_on(view: View) -> str | None:
    """The weight whose gradient turns least, if it grows and most steps find it there; None if all is well."""
    if len(view.training) < _LEAST or fallen(view) > _FALL:
        return None
    if not all(_is_usual(view, operation) for operation in (OPTIMIZER_STEP, HELD_GRADIENTS)):
        return None
    if all(view.history(place.node, role=place.role).is_constant for place in view.flow.of_type("input")):
        return None  # the gradients of one full batch hardly turn, either
    steps = view.training[:_MOST_STEPS]
    turns = {
        parameter.node: _turn(steps, parameter.node) for parameter in trainable(view) if _grows(view, parameter.node)
    }
    known = {node: turn for node, turn in turns.items() if math.isfinite(turn)}
    if not known or float(np.median(list(known.values()))) < _TURN:
        return None
    return max(known, key=lambda node: known[node])


def _is_usual(view: View, operation: str) -> bool:
    """Whether most steps call an operation: the optimizer's step, or a ``backward`` that finds gradients there."""
    found = [any(call.operation == operation for call in calls) for calls in occurrences(view, "step")]
    return sum(found) > _MOSTLY * len(found)


def _grows(view: View, node: str) -> bool:
    """Whether the gradient is far larger in the second half of the steps than at the beginning."""
    norms = view.history(node, "gradient").of("norm")
    return len(norms) >= _LEAST and median(norms[len(norms) // 2 :]) > _GROWTH * median(norms[:2])


def _turn(steps: Sequence[Step], node: str) -> float:
    """The median cosine of a weight's gradient with that of the recorded step before, by what was kept of it."""
    kept = [_gradient(step, node) for step in steps]
    pairs = [(one, two) for one, two in pairwise(kept) if one is not None and two is not None]
    cosines = [_cosine(one, two) for one, two in pairs if one.shape == two.shape]
    return median(np.array(cosines)) if len(cosines) >= _LEAST // 2 else math.nan


def _gradient(step: Step, node: str) -> NDArray[np.float64] | None:
    neurons = neurons_of(step, Place(node, "parameter"), "gradient")
    return None if neurons is None else neurons.samples.astype(np.float64).ravel()


def _cosine(one: NDArray[np.float64], two: NDArray[np.float64]) -> float:
    size = float(np.linalg.norm(one) * np.linalg.norm(two))
    return float(one @ two) / size if size > 0 else math.nan
