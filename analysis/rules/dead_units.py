"""The rule ``dead-units``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.curves import fallen
from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.flow import Place
from stepscope.analysis.history import History
from stepscope.analysis.layers import gradient_of, layers
from stepscope.analysis.rule import Rule
from stepscope.analysis.units import Units, closed_units, dead_units, late_steps
from stepscope.analysis.view import View, evidence
from stepscope.store import Step

_FEWEST = 4
"""Steps of the last third: a unit that was zero for fewer batches may only wait for its samples."""
_RELUS = frozenset(["relu", "relu6", "threshold"])


@dataclass(frozen=True)
class DeadUnits(Rule):
    """Units of a ReLU layer that are zero for every sample: they get no gradient and cannot come back.

    Symptom: the net behaves like a smaller one; in the worst case its output is constant.

    How it is measured: in five steps of the last third of the training, a feature (a channel of an image) is dead if
    it is exactly zero for every sample of all of them, in each call of its layer. A ReLU that was called as a function
    has no name of its own: there the gradient of the layer before it tells, which is zero for dead units, while their
    values are never above zero (a unit that nobody reads has no gradient either).

    Causes: a learning rate that was too high at some time, a large negative bias, inputs that are not normalised.

    Remedy: lower the learning rate, normalise the inputs, or use a leaky ReLU or GELU.

    Attributes:
        share: of dead units in a layer. Source: SageMaker's DeadRelu says 50%, which a small net that fits well
            reached in our trials.
        severe: from this share on the layer itself is dead, and it is an error.
        fall: below ``severe`` it is worth knowing only, if the loss has lost this part of its start or more: the units
            that are left are enough.
    """

    name = "dead-units"
    causes = "A learning rate that was too high at some time, a large negative bias, or inputs that are not normalised."
    remedy = "Lower the learning rate, normalise the inputs, or use a leaky ReLU or GELU instead."
    share: float = 0.75
    severe: float = 0.95
    fall: float = 0.5

    def check(self, view: View) -> Iterable[Finding]:
        steps = late_steps(view)
        if len(steps) < _FEWEST:
            return
        relus: dict[frozenset[str], list[Place]] = defaultdict(list)
        for place, vertex in view.flow.vertices.items():
            if vertex.operation in _RELUS and vertex.type == "calculated" and _is_first(view, place):
                sources = frozenset(link.place.node for link in view.flow.sources.get(place, ()))
                relus[sources | {place.node}].append(place)
        for calls in relus.values():
            yield from self._look(view, calls, "value", [dead_units(steps, place, "value") for place in calls])
        seen = frozenset[str]().union(*relus)
        for layer in layers(view):
            history = gradient_of(view, layer.module)
            if history is None or layer.module in seen or not _is_judged(view, layer.module, history):
                continue
            calls = list(view.flow.of_node(layer.module))
            dead = [_closed(view, steps, place, dead_units(steps, place, history.quantity)) for place in calls]
            yield from self._look(view, calls, history.quantity, dead)

    def _look(self, view: View, calls: list[Place], quantity: str, found: list[Units | None]) -> Iterable[Finding]:
        """Of a layer that is called several times, units are dead that are so in all calls."""
        known = [(place, one) for place, one in zip(calls, found, strict=True) if one is not None and len(one) >= 4]
        if not known or len({len(one) for _, one in known}) > 1:
            return
        place, dead = known[0][0], np.logical_and.reduce([one for _, one in known])
        if dead.mean() < self.share:
            return
        history = view.history(place.node, quantity, role=place.role)
        what = "zero" if quantity == "value" else "without any gradient"
        onset = _onset(history, float(dead.mean()))
        summary = (
            f"{dead.sum()} of {len(dead)} units of {place.node} are dead: {what} for every sample in the last third of "
            f"the training.{_of_the_rate(view, history, onset)}"
        )
        shown = [evidence(history, "zero_fraction", f"{dead.mean():.0%} of the units are dead at the end")]
        yield self.finding(
            view, place.node, self._level(view, float(dead.mean())), summary, shown, step=onset, confidence=0.85
        )

    def _level(self, view: View, share: float) -> Level:
        if share >= self.severe:
            return "error"
        return "info" if self.fall <= fallen(view) <= 1 else "warning"


def _of_the_rate(view: View, history: History, onset: int) -> str:
    """What threw units below zero that were alive before: steps of the optimizer, which the learning rate scales."""
    first = int(view.began)
    if onset <= first or first > 0 or not np.all(np.isfinite(history.of("abs_max"))):
        return ""
    return f" They were alive before step {onset}: is the learning rate too high for them?"


def _is_judged(view: View, module: str, gradient: History) -> bool:
    """Whether zeros in the gradient come from dead units: where all is zero, what went into the ReLU is negative."""
    largest = view.history(module).of("max")
    late = largest[2 * len(largest) // 3 :]
    return bool(np.any(gradient.of("abs_max") > 0)) or (len(late) > 0 and bool(np.all(late <= 0)))


def _closed(view: View, steps: Sequence[Step], place: Place, dead: Units | None) -> Units | None:
    """Those of the units without a gradient that a ReLU behind them holds back; a normalisation may lie between."""
    sinks = [view.modules.get(link.place.node) for link in view.flow.sinks.get(place, ())]
    if dead is None or any(module is not None and "Norm" in module.module_class for module in sinks):
        return dead
    closed = closed_units(steps, place)
    return dead & closed if closed is not None and len(closed) == len(dead) else dead


def _is_first(view: View, place: Place) -> bool:
    """Whether the place is not another name for one further up."""
    return len(list(view.flow.same_tensor(place))) == 1


def _onset(history: History, share: float) -> int:
    """The first step from which on at least this share of the elements is zero."""
    low = np.flatnonzero(history.of("zero_fraction") < 0.9 * share)
    index = int(low[-1]) + 1 if len(low) else 0
    return int(history.steps[min(index, len(history) - 1)])
