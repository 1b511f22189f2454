"""The rule ``growing-state``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store import Step
from stepscope.store.records import STATISTICS

_NORM = STATISTICS.index("norm")


@dataclass(frozen=True)
class GrowingState(Rule):
    """A hidden state that grows from iteration to iteration, within one step.

    Symptom: long sequences give huge outputs, gradients explode through time.

    How it is measured: the norm of each tensor that one iteration hands on to the next: at the last iteration against
    the first one in which it is not zero, in the median of up to ten training steps.

    Causes: a recurrent weight with a spectral norm above 1 and no saturating activation, a state that is summed up
    without a gate or a norm.

    Remedy: normalise the state, use a gate (GRU, LSTM) or tanh, start recurrent weights orthogonal.

    Attributes:
        growth: the factor from which it counts. Source: of ours; a mean of what came before does not grow at all.
        linear: times the number of iterations that growth must exceed, too: what only counts or sums up grows by one
            for each.
        iterations: fewer than these show no trend.
    """

    name = "growing-state"
    causes = "A recurrent weight with a spectral norm above 1 and nothing that saturates, or a sum without a gate."
    remedy = "Normalise the state, use a gate (GRU, LSTM) or tanh, and start recurrent weights orthogonal."
    growth: float = 100.0
    linear: float = 4.0
    iterations: int = 4

    def check(self, view: View) -> Iterable[Finding]:
        steps = view.training[:: max(1, len(view.training) // 10)]
        carried = {
            link.place
            for links in view.flow.sources.values()
            for link in links
            if link.lag and view.flow.vertices[link.place].type == "calculated"
        }
        for place in sorted(carried, key=lambda place: view.position.get(place.node, 0)):
            curves = [norms for step in steps for norms in [_norms(step, place)] if len(norms) >= self.iterations]
            factors = [float(norms[-1] / norms[0]) for norms in curves]
            if len(factors) >= 3 and np.median(factors) > max(self.growth, self.linear * np.median(_lengths(curves))):
                yield self._finding(view, place, float(np.median(factors)), int(np.median(_lengths(curves))))
                return

    def _finding(self, view: View, place: Place, factor: float, length: int) -> Finding:
        history = view.history(place.node, role=place.role)
        summary = f"The state {place.node} grows {factor:.3g} times over {length} iterations of one step."
        shown = [evidence(history, "norm", "its norm at the last iteration")]
        return self.finding(view, place.node, "warning", summary, shown, step=int(history.steps[0]), confidence=0.8)


def _norms(step: Step, place: Place) -> NDArray[np.float64]:
    """The norms of a place in all iterations of a step, from the first one on that is not zero."""
    rows = [
        (tensor.iteration, row)
        for row, tensor in enumerate(step.layout.tensors)
        if tensor.node == place.node and tensor.role == place.role and tensor.quantity == "value"
    ]
    norms = step.statistics()[[row for iteration, row in sorted(rows) if iteration >= 0], _NORM]
    norms = norms[np.isfinite(norms)]
    first = int(np.argmax(norms > 0)) if len(norms) else 0
    return np.asarray(norms[first:] if len(norms) and norms[first] > 0 else norms[:0])


def _lengths(curves: list[NDArray[np.float64]]) -> list[int]:
    return [len(norms) for norms in curves]
