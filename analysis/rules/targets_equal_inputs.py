"""The rule ``targets-equal-inputs``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.loss_inputs import comparisons
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store.records import STATISTICS

_IDENTITY = [STATISTICS.index(name) for name in ("mean", "std", "min", "max", "norm")]
_LEAST = 3


@dataclass(frozen=True)
class TargetsEqualInputs(Rule):
    """The classes that a net has to predict are those that it is given.

    Symptom: the loss of a language model falls to almost zero, and what it writes repeats itself.

    How it is measured: the target of a cross-entropy and an integer input of the net have as many elements, and the
    same mean, standard deviation, smallest and largest value and norm, to the last digit, in every training step.

    Causes: targets that are not shifted by one place (or shifted by the model and the data, one forth and one back).

    Remedy: predict ``tokens[:, 1:]`` from ``tokens[:, :-1]``; look whether the model shifts its labels itself.

    Source: no threshold.
    """

    name = "targets-equal-inputs"
    causes = "The targets of a language model are not shifted by one place against its inputs."
    remedy = "Predict tokens[:, 1:] from tokens[:, :-1]; look whether the model shifts its labels itself."

    def check(self, view: View) -> Iterable[Finding]:
        for comparison in comparisons(view):
            if comparison.target is None or comparison.operation not in ("cross_entropy", "nll_loss"):
                continue
            # What was computed from an input on the way to the loss has other positions than the input itself.
            size = math.prod(comparison.shape[:1] + comparison.shape[2:])
            for place in _integer_inputs(view, comparison.prediction, size):
                if _are_equal(view, place, comparison.target):
                    yield self._finding(view, comparison.target, place)

    def _finding(self, view: View, target: Place, place: Place) -> Finding:
        history = view.history(target.node, role=target.role)
        what = "The targets" if target == place else f"The targets {target.node}"
        summary = f"{what} equal the input {place.node}: the net is asked for what it is given."
        shown = [evidence(history, "mean", "its mean is the input's in every step")]
        step = int(history.steps[0])
        return self.finding(
            view, target.node, "warning", summary, shown, step=step, nodes=[place.node], confidence=0.95
        )


def _integer_inputs(view: View, prediction: Place, size: int) -> Iterator[Place]:
    """The integer inputs of this many elements that the prediction was computed from."""
    if not view.training:
        return
    step = view.training[-1]
    for place in view.flow.upstream([prediction]):
        row = step.layout.row(place.node, "value", place.role, None)
        if row is not None and view.flow.vertices[place].type == "input":
            is_integer = step.layout.tensors[row].dtype.startswith(("int", "uint"))
            if is_integer and math.prod(step.find(place.node, role=place.role).shape) == size:
                yield place


def _are_equal(view: View, one: Place, other: Place) -> bool:
    if one == other:  # the input itself was given to the loss
        return True
    first, second = (view.history(place.node, role=place.role) for place in (one, other))
    if len(first) < _LEAST or not np.array_equal(first.steps, second.steps):
        return False
    return bool(np.array_equal(first.statistics[:, _IDENTITY], second.statistics[:, _IDENTITY]))
