"""The rule ``dead-units``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.history import History
from stepscope.analysis.layers import gradient_of, layers
from stepscope.analysis.rule import Rule
from stepscope.analysis.units import dead_units, late_steps
from stepscope.analysis.view import View, evidence

_RELUS = frozenset(["relu", "relu6", "threshold"])


@dataclass(frozen=True)
class DeadUnits(Rule):
    """Units of a ReLU layer that are zero for every sample: they get no gradient and cannot come back.

    Symptom: the net behaves like a smaller one; in the worst case its output is constant.

    How it is measured: in five steps of the last third of the training, a feature (a channel of an image) is dead if
    it is exactly zero for every sample of all of them. A ReLU that was called as a function has no name of its own:
    there the gradient of the layer before it tells, which is zero for dead units.

    Causes: a learning rate that was too high at some time, a large negative bias, inputs that are not normalised.

    Remedy: lower the learning rate, normalise the inputs, or use a leaky ReLU or GELU.

    Attributes:
        share: of dead units in a layer. Source: SageMaker's DeadRelu says 50%, which a small net that fits well
            reached in our trials.
        severe: from this share on the layer itself is dead, and it is an error.
    """

    name = "dead-units"
    causes = "A learning rate that was too high at some time, a large negative bias, or inputs that are not normalised."
    remedy = "Lower the learning rate, normalise the inputs, or use a leaky ReLU or GELU instead."
    share: float = 0.75
    severe: float = 0.95

    def check(self, view: View) -> Iterable[Finding]:
        steps = late_steps(view)
        if len(steps) < 2:
            return
        seen: set[str] = set()
        for place, vertex in view.flow.vertices.items():
            if vertex.operation in _RELUS and vertex.type == "calculated" and _is_first(view, place):
                seen.update(link.place.node for link in view.flow.sources.get(place, ()))
                yield from self._look(view, place, "value", dead_units(steps, place, "value"))
        for layer in layers(view):
            history = gradient_of(view, layer.module)
            if history is None or layer.module in seen or not _is_judged(view, layer.module, history):
                continue
            for place in view.flow.of_node(layer.module):
                yield from self._look(view, place, history.quantity, dead_units(steps, place, history.quantity))

    def _look(
        self, view: View, place: Place, quantity: str, dead: np.ndarray[tuple[int], np.dtype[np.bool_]] | None
    ) -> Iterable[Finding]:
        if dead is None or len(dead) < 4 or dead.mean() < self.share:
            return
        history = view.history(place.node, quantity, role=place.role)
        what = "zero" if quantity == "value" else "without any gradient"
        summary = (
            f"{dead.sum()} of {len(dead)} units of {place.node} are dead: {what} for every sample in the last third of "
            f"the training."
        )
        shown = [evidence(history, "zero_fraction", f"{dead.mean():.0%} of the units are dead at the end")]
        yield self.finding(
            view, place.node, "error" if dead.mean() >= self.severe else "warning", summary, shown,
            step=_onset(history, float(dead.mean())), confidence=0.85,
        )  # fmt: skip


def _is_judged(view: View, module: str, gradient: History) -> bool:
    """Whether zeros in the gradient come from dead units: where all is zero, what went into the ReLU is negative."""
    largest = view.history(module).of("max")
    late = largest[2 * len(largest) // 3 :]
    return bool(np.any(gradient.of("abs_max") > 0)) or (len(late) > 0 and bool(np.all(late <= 0)))


def _is_first(view: View, place: Place) -> bool:
    """Whether the place is not another name for one further up."""
    return len(list(view.flow.same_tensor(place))) == 1


def _onset(history: History, share: float) -> int:
    """The first step from which on at least this share of the elements is zero."""
    low = np.flatnonzero(history.of("zero_fraction") < 0.9 * share)
    index = int(low[-1]) + 1 if len(low) else 0
    return int(history.steps[min(index, len(history) - 1)])
