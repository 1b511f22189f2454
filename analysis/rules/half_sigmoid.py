"""The rule ``half-sigmoid``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.flow import Place
from stepscope.analysis.robust import smallest
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_MIDDLE = 0.5


@dataclass(frozen=True)
class HalfSigmoid(Rule):
    """A sigmoid that gets nothing below zero: it never says less than a half.

    Symptom: probabilities, or scores, are all between 0.5 and 1; the loss settles early.

    How it is measured: the smallest number that a sigmoid gives in all training steps is a half or more, while it
    varies. It is a warning where a loss is computed from it without another module in between, and else worth knowing.

    Causes: a ReLU, a norm, a distance or a square before a sigmoid; a sigmoid of what is a probability already.

    Remedy: leave out what is before the sigmoid, or the sigmoid itself: a distance goes into its loss as it is.

    Attributes:
        least: fewer recorded steps are not judged. Source: of ours; a gate may be open in a few of them.
    """

    name = "half-sigmoid"
    causes = "A ReLU, a norm, a distance or a square before a sigmoid, or a sigmoid of what is a probability already."
    remedy = "Leave out what is before the sigmoid, or the sigmoid itself: a distance goes into its loss as it is."
    least: int = 10

    def check(self, view: View) -> Iterable[Finding]:
        for place, vertex in view.flow.vertices.items():
            is_sigmoid = vertex.operation == "sigmoid" and vertex.type in ("calculated", "prediction")
            if is_sigmoid and len(list(view.flow.same_tensor(place))) == 1 and self._is_half(view, place):
                yield self._finding(view, place)

    def _is_half(self, view: View, place: Place) -> bool:
        history = view.history(place.node, role=place.role)
        varies = len(history) >= self.least and bool((history.of("std") > 0).all())
        return varies and smallest(history.of("min")) >= _MIDDLE

    def _finding(self, view: View, place: Place) -> Finding:
        losses = set(view.losses)
        level: Level = "warning" if _ends(view, place) & losses else "info"
        history = view.history(place.node, role=place.role)
        summary = (
            f"{place.node} is a sigmoid that is never below a half: what goes "
            f"into it is never negative, so that half of its range cannot be reached."
        )
        return self.finding(
            view, place.node, level, summary, [evidence(history, "min", "never below a half")], confidence=0.8,
            step=int(history.steps[0]), nodes=[loss.node for loss in sorted(_ends(view, place) & losses)],
        )  # fmt: skip


def _ends(view: View, place: Place) -> set[Place]:
    """What is computed from a place, under whatever name, without a module in between."""
    found: set[Place] = set()
    waiting = [place]
    while waiting:
        for link in view.flow.sinks.get(waiting.pop(), ()):
            alias = view.flow.vertices[link.place].operation == "sigmoid"
            if link.place not in found:
                found.add(link.place)
                waiting += [link.place] if alias else []
    return found
