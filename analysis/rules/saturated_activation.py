"""The rule ``saturated-activation``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.bounds import maker
from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.history import History, Values
from stepscope.analysis.loss_inputs import comparisons
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class SaturatedActivation(Rule):
    """Hidden sigmoid or tanh units that are stuck at their ends, where their slope is almost zero.

    Symptom: what is in front of them hardly learns.

    How it is measured: the mean slope of the activation follows exactly from its mean and standard deviation:
    ``m - m² - s²`` for a sigmoid, ``1 - m² - s²`` for a tanh. It is compared with the steepest slope (1/4 and 1), in
    the median of the second half of the training. Outputs that go into a loss are left out: they may be sure.

    Causes: weights initialised too large, inputs that are not normalised, a learning rate that is too high.

    Remedy: normalise what goes in, initialise smaller, or use another activation.

    Attributes:
        slope: the mean slope as a part of the steepest. Source: at the bounds of SageMaker's SaturatedActivation it is
            0.00; the layers of small healthy nets had 0.23 to 0.75 after 100 steps; a twentieth is where nineteen of
            twenty units are stuck.
        born: the same of what is so from the first step on. Source: matrices of unit normal numbers give 0.09; a
            healthy critic got there in 100 steps.
    """

    name = "saturated-activation"
    causes = "Weights initialised too large, inputs that are not normalised, or a learning rate that is too high."
    remedy = "Normalise what goes in (data, or a normalisation layer), initialise smaller, or use another activation."
    slope: float = 0.05
    born: float = 0.1

    def check(self, view: View) -> Iterable[Finding]:
        outputs = {maker(view, comparison.prediction) for comparison in comparisons(view)}
        for place, vertex in view.flow.vertices.items():
            if vertex.operation not in ("sigmoid", "tanh") or vertex.type != "calculated" or place in outputs:
                continue
            if len(list(view.flow.same_tensor(place))) > 1:
                continue
            history = view.history(place.node, role=place.role)
            slopes = _slopes(history, vertex.operation)
            late = slopes[len(slopes) // 2 :]
            limit = self.born if len(slopes) and slopes[0] < self.born else self.slope
            if len(late) and np.median(late) < limit:
                onset = _onset(history, slopes, limit)
                yield self._finding(view, place, vertex.operation, history, float(np.median(late)), onset)

    def _finding(self, view: View, place: Place, operation: str, history: History, late: float, onset: int) -> Finding:
        summary = (
            f"{place.node} is saturated: the mean slope of its {operation} is {late:.1%} of the steepest from step "
            f"{onset} on (abs_mean {float(history.of('abs_mean')[-1]):.3g})."
        )
        shown = [evidence(history, "abs_mean", "close to its end" if operation == "tanh" else "at its ends")]
        return self.finding(view, place.node, "warning", summary, shown, step=onset, confidence=0.85)


def _onset(history: History, slopes: Values, limit: float) -> int:
    """The step from which on the slope stays below the limit."""
    steep = np.flatnonzero(slopes >= limit)
    return int(history.steps[min(int(steep[-1]) + 1 if len(steep) else 0, len(history) - 1)])


def _slopes(history: History, operation: str) -> Values:
    """``(n,)``: the mean slope over the steepest one."""
    mean, std = history.of("mean"), history.of("std")
    square = mean**2 + std**2
    return np.asarray(4 * (mean - square) if operation == "sigmoid" else 1 - square)
