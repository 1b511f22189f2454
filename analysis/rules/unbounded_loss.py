"""The rule ``unbounded-loss``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.curves import LEAST_POINTS, Curve, loss_curves
from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.loss_inputs import SMALL
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class UnboundedLoss(Rule):
    """The loss falls below zero, faster and faster: it has no minimum.

    Symptom: a loss curve that looks better than it can be, while activations and weights grow.

    How it is measured: the loss of a training with one objective is negative at the end, many times larger than at the
    start, and the second half of the steps lowered it by far more than the first. Densities have negative losses, too,
    but approach a bound. Or the gradient of a well-known loss (a cross-entropy, a mean square) is negative in every
    step, and nothing else is in the objective.

    Causes: a term with the wrong sign, a likelihood of raw scores instead of log-probabilities, labels outside of 0 to
    1 in a binary cross-entropy, a distance that is to grow without a margin.

    Remedy: write down the smallest value that each term of the loss can have; give those without one a bound.

    Attributes:
        growth: times the size of the first losses (or 1). Source: a density would have to become that many nats
            sharper in the run.
        speed: times the fall of the first half. Source: a loss that approaches a bound falls less in the second half.
    """

    name = "unbounded-loss"
    about = "loss"
    causes = "A term with the wrong sign, raw scores where log-probabilities are wanted, or labels outside of 0 to 1."
    remedy = "Write down the smallest value that each term of the loss can have, and bound those that have none."
    growth: float = 10.0
    speed: float = 2.0

    def check(self, view: View) -> Iterable[Finding]:
        if len(view.objectives) != 1:
            return
        turned = _turned(view)
        if turned is not None:
            yield self._of_sign(view, turned)
            return
        for curve in loss_curves(view):
            if self._is_unbounded(curve):
                yield self._finding(view, curve)

    def _of_sign(self, view: View, term: Place) -> Finding:
        weight = view.history(term.node, "gradient", role=term.role)
        summary = (
            f"{term.node} ({view.flow.vertices[term].operation}) has the wrong sign: it is all that is minimised, "
            f"with a weight of {weight.of('mean')[0]:.3g}, so that what should be small is made large, without bound."
        )
        shown = [evidence(view.history(term.node, role=term.role), "mean", "it is made to grow")]
        step, nodes = int(weight.steps[0]), [place.node for place in view.objectives]
        return self.finding(view, term.node, "error", summary, shown, step=step, nodes=nodes, confidence=0.9)

    def _is_unbounded(self, curve: Curve) -> bool:
        if len(curve) < LEAST_POINTS:
            return False
        middle = float(curve.values[len(curve) // 2])
        far = curve.end < -self.growth * max(abs(curve.start), 1.0)
        return far and middle - curve.end > self.speed * max(curve.start - middle, 0.0)

    def _finding(self, view: View, curve: Curve) -> Finding:
        below = int(curve.steps[(curve.values < 0).argmax()])
        summary = (
            f"{curve.place.node} falls without bound: from {curve.start:.3g} at first to {curve.end:.3g} at last, "
            f"faster and faster, negative from step {below} on."
        )
        shown = [evidence(curve.history, "mean", f"{curve.start:.3g} to {curve.end:.3g}")]
        return self.finding(view, curve.place.node, "error", summary, shown, step=below, confidence=0.85)


def _turned(view: View) -> Place | None:
    """A loss with a well-known formula that is the only source of the objective, with a weight below zero."""
    (objective,) = view.objectives
    sources = [link.place for link in view.flow.sources.get(objective, ()) if link.differentiable]
    terms = [place for place in sources if view.flow.vertices[place].operation in SMALL]
    if len(sources) != 1 or not terms:
        return None
    weights = view.history(terms[0].node, "gradient", role=terms[0].role).of("mean")
    return terms[0] if len(weights) > 2 and bool((weights < 0).all()) else None
