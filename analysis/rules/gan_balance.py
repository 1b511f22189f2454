"""The rule ``gan-balance``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.curves import LEAST_POINTS, Curve, loss_curves
from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.optimizers import held_by, watched
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class GanBalance(Rule):
    """One of two nets that are trained against each other has won: the other one can learn nothing from it any more.

    Symptom: what the generator makes does not get better, or all looks alike.

    How it is measured: with two watched optimizers and several losses that are no terms of each other, one loss fell to
    almost nothing while another one grew, through which gradients reach parameters of both optimizers (a generator's
    loss is what the critic says; the loss of a policy is not computed through the net of values).

    Causes: a critic that is too strong, steps too often or learns too fast; saturating generator losses.

    Remedy: give the loser more steps or a higher learning rate; smooth labels, add noise or a gradient penalty.

    Attributes:
        won: the part of its start below which a loss has been won. Source: a critic that cannot tell has log(2)
            or more; at a fiftieth of it it is right in 99 of 100 cases.
        grown: times its start by which the other loss is larger. Source: doubled, as noise does not.
    """

    name = "gan-balance"
    causes = "A critic that is too strong, or learns too fast, for its generator; or the other way round."
    remedy = "Give the loser more steps or a higher learning rate; smooth the labels, add noise or a gradient penalty."
    won: float = 0.02
    grown: float = 2.0

    def check(self, view: View) -> Iterable[Finding]:
        curves = [curve for curve in loss_curves(view) if len(curve) >= LEAST_POINTS]
        if len(watched(view)) < 2 or len({curve.place for curve in curves}) < 2:
            return
        winners = [curve for curve in curves if 0 <= curve.end < self.won * curve.start]
        losers = [curve for curve in curves if curve.start > 0 and curve.end > self.grown * curve.start]
        losers = [curve for curve in losers if _is_contested(view, curve)]
        if winners and losers and winners[0].place != losers[0].place:
            yield self._finding(view, winners[0], losers[0])

    def _finding(self, view: View, winner: Curve, loser: Curve) -> Finding:
        summary = (
            f"{winner.place.node} has won ({winner.start:.3g} to {winner.end:.2g}) against {loser.place.node} "
            f"({loser.start:.3g} to {loser.end:.3g})."
        )
        shown = [
            evidence(loser.history, "mean", f"{loser.start:.3g} to {loser.end:.3g}"),
            evidence(winner.history, "mean", f"{winner.start:.3g} to {winner.end:.2g}"),
        ]
        low = winner.values < self.won * winner.start
        step = int(winner.steps[int(low.argmax())])
        return self.finding(
            view, loser.place.node, "warning", summary, shown, step=step, nodes=[winner.place.node], confidence=0.75
        )


def _is_contested(view: View, curve: Curve) -> bool:
    """Whether the loss depends, differentiably, on parameters of two optimizers."""
    holders: dict[str, list[Place]] = {}
    for node, names in held_by(view).items():
        for name in names:
            holders.setdefault(name, []).extend(view.flow.of_node(node))
    return sum(curve.place in view.flow.downstream(held, differentiable=True) for held in holders.values()) > 1
