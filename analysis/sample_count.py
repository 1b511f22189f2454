"""About how many different samples a training has, estimated from how often those that were kept come again."""

from __future__ import annotations

import numpy as np

from stepscope.analysis.flow import Place
from stepscope.analysis.history import Values
from stepscope.analysis.loss_inputs import is_floating
from stepscope.analysis.neurons import neurons_of
from stepscope.analysis.view import View
from stepscope.store import Step

_MOST, _ENOUGH = 400, 20


def count_samples(view: View, loss: Place) -> float:
    """About how many different samples feed a loss; 0 if that is not known.

    ``k`` drawn rows of which ``d`` differ are from about ``n`` samples with ``d = n (1 - exp(-k / n))``: the expected
    number of occupied boxes. Words are no samples; inputs that are the same in all steps have as many as rows.
    """
    behind = view.flow.upstream([loss])
    places = [place for place in view.flow.of_type("input") if place in behind and is_floating(view, place)]
    if places and all(view.history(place.node, role=place.role).is_constant for place in places):
        return float((view.shape(places[0], view.training[-1]) or (0,))[0])
    steps = view.training[:: max(1, len(view.training) // _MOST)]
    counts = [_estimate([row for step in steps for row in _rows(step, place)]) for place in places]
    return max(counts, default=0.0)


def _rows(step: Step, place: Place) -> list[bytes]:
    kept = neurons_of(step, place)
    return [] if kept is None or kept.samples is None else [row.tobytes() for row in kept.samples]


def _estimate(rows: list[bytes]) -> float:
    """How many samples so many draws, some of them the same, are from; 0 if too few are the same to tell."""
    drawn, different = len(rows), len(set(rows))
    if drawn - different < _ENOUGH:
        return 0.0
    numbers: Values = np.geomspace(max(different, 1), 1e6, 2000)
    expected = numbers * -np.expm1(-drawn / numbers)
    return float(numbers[int(np.argmin(np.abs(expected - different)))])
