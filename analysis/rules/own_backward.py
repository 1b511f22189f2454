"""The rule ``own-backward``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.lines import sites_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store.records import SourceLine


@dataclass(frozen=True)
class OwnBackward(Rule):
    """The backward of a custom function does not depend on the gradient that it is given.

    Symptom: what lies before a custom ``torch.autograd.Function`` drifts in one direction, dies or saturates, and does
    not learn; after it, all is well.

    How it is measured: the gradient of what goes into the function has one sign in all elements of all training steps,
    while the gradients of what is made of its result have both. A derivative that multiplies the incoming gradient by a
    slope gives both signs, too, whatever the slope; one that returns the slope itself does not. Other mistakes in a
    backward are found by ``probe(model, batch, probes=["gradient"])`` only.

    Causes: ``backward`` returns the slope of the function, and forgets to multiply it with ``grad_output``.

    Remedy: ``return grad_output * slope``; then check it with ``torch.autograd.gradcheck`` in float64.

    Attributes:
        least: elements, over all steps, below which one sign may be chance. Source: of ours.
    """

    name = "own-backward"
    causes = "backward() returns the slope of the function itself, and forgets to multiply it with grad_output."
    remedy = "Return grad_output * slope; then check it with torch.autograd.gradcheck in float64."
    least: int = 200

    def check(self, view: View) -> Iterable[Finding]:
        told: set[str] = set()
        for function, source, line, after in _functions(view):
            if source.node not in told and self._is_one_sided(view, source) and any(_has_both(view, p) for p in after):
                told.add(source.node)
                yield self._finding(view, function, source, line, after)

    def _is_one_sided(self, view: View, place: Place) -> bool:
        history = view.history(place.node, "gradient", role=place.role)
        shape = view.shape(place, view.training[-1]) if len(history) >= 3 else None
        if shape is None or len(view.flow.sinks.get(place, ())) > 2:
            return False
        low, high, size = history.of("min"), history.of("max"), int(np.prod(shape)) * len(history)
        return size >= self.least and bool(
            (np.all(low >= 0) and np.any(high > 0)) or (np.all(high <= 0) and np.any(low < 0))
        )

    def _finding(self, view: View, function: str, place: Place, line: SourceLine | None, after: list[Place]) -> Finding:
        history = view.history(place.node, "gradient", role=place.role)
        summary = (
            f"The custom backward of {function} does not depend on the gradient that it is given: all gradients of "
            f"{place.node} have one sign in {len(history)} training steps, those of {after[0].node} behind it both."
        )
        return self.finding(
            view, place.node, "error", summary, [evidence(history, "min", "never of the other sign")],
            step=int(history.steps[0]), confidence=0.93, nodes=[p.node for p in after], source=line,
        )  # fmt: skip


def _functions(view: View) -> Iterator[tuple[str, Place, SourceLine | None, list[Place]]]:
    """Each custom function: its name, what goes into it, where it is used, and what is made of its result."""
    for site in sites_of(view, "own backward"):
        for place in site.before:
            if view.flow.vertices[place].type == "calculated":
                yield site.operation.removesuffix("Backward"), place, site.source, sorted(site.after)
    for place, vertex in view.flow.vertices.items():
        if vertex.operation.endswith("Backward") and vertex.type == "calculated" and view.training:
            for link in view.flow.sources.get(place, ()):
                behind = view.flow.vertices[link.place]
                if behind.type == "calculated" and link.differentiable and behind.operation != vertex.operation:
                    yield vertex.operation.removesuffix("Backward"), link.place, vertex.source, [place]


def _has_both(view: View, place: Place) -> bool:
    history = view.history(place.node, "gradient", role=place.role)
    return len(history) > 0 and bool(np.any((history.of("min") < 0) & (history.of("max") > 0)))
