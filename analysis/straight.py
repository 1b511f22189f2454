"""How straight the way of the weights is: whether every step goes on where the last one went."""

from __future__ import annotations

import numpy as np

from stepscope.analysis.neurons import neurons_of
from stepscope.analysis.parameters import Parameter, trainable
from stepscope.analysis.robust import mean
from stepscope.analysis.view import View

_LEAST = 20


def straightness(view: View) -> float:
    """How far the kept numbers of the weights got, as a part of what the steps in between add up to.

    1 if each number always moved the same way; steps that go to and fro by chance get as far as the root of their
    number. NaN if too little was kept. Weights count by their elements.
    """
    ways = {parameter: _way(view, parameter) for parameter in trainable(view)}
    known = {parameter: way for parameter, way in ways.items() if np.isfinite(way)}
    total = sum(np.prod(parameter.shape) for parameter in known)
    return float(sum(np.prod(p.shape) * way for p, way in known.items()) / total) if total else float("nan")


def _way(view: View, parameter: Parameter) -> float:
    updates = view.history(parameter.node, "update")
    places = view.flow.of_node(parameter.node)
    if len(updates) < _LEAST or not places:
        return float("nan")
    first, last = view.training[0], view.training[-1]
    kept = [neurons_of(step, places[0]) for step in (first, last)]
    numbers = [np.asarray(one.samples, np.float64).ravel() for one in kept if one is not None]
    steps = (last.number - first.number) * mean(updates.of("abs_mean"))
    if len(numbers) < 2 or len(numbers[0]) != len(numbers[1]) or not steps > 0:
        return float("nan")
    return float(np.abs(numbers[1] - numbers[0]).mean() / steps)
