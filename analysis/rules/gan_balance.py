"""The rule ``gan-balance``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from stepscope.analysis.curves import LEAST_POINTS, Curve, loss_curves
from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.loss_inputs import OF_CLASSES
from stepscope.analysis.optimizers import held_by, watched
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class GanBalance(Rule):
    """One of two nets that are trained against each other has won: the other one can learn nothing from it any more.

    Symptom: what the generator makes does not get better, or all looks alike.

    How it is measured: with two watched optimizers and several losses that are no terms of each other, one loss fell to
    almost nothing while another one grew, through which gradients reach parameters of both optimizers (a generator's
    loss is what the critic says; the loss of a policy is not computed through the net of values). Where one loss is cut
    off from what the other one trains, and both fall, the rivals want the same; unless the generator's is a term with
    a minus, which saturates as it falls.

    Causes: a critic that is too strong, steps too often or learns too fast; saturating generator losses.

    Remedy: give the loser more steps or a higher learning rate; smooth labels, add noise or a gradient penalty.

    Attributes:
        won: the part of its start below which a loss has been won. Source: a critic that cannot tell has log(2)
            or more; at a fiftieth of it it is right in 99 of 100 cases.
        grown: times its start by which the other loss is larger. Source: doubled, as noise does not.
        both: the part of its start below which the losses of both rivals cannot fall, unless they want the same.
    """

    name = "gan-balance"
    causes = "A critic that is too strong, or learns too fast, for its generator; or the other way round."
    remedy = "Give the loser more steps or a higher learning rate; smooth the labels, add noise or a gradient penalty."
    won: float = 0.02
    grown: float = 2.0
    both: float = 0.6

    def check(self, view: View) -> Iterable[Finding]:
        curves = [curve for curve in loss_curves(view) if len(curve) >= LEAST_POINTS]
        if len(watched(view)) < 2 or len({curve.place for curve in curves}) < 2:
            return
        winners = [curve for curve in curves if 0 <= curve.end < self.won * curve.start]
        losers = [curve for curve in curves if curve.start > 0 and curve.end > self.grown * curve.start]
        losers = [curve for curve in losers if _is_contested(view, curve)]
        if winners and losers and winners[0].place != losers[0].place:
            yield self._finding(view, winners[0], losers[0])
            return
        fallen = [curve for curve in curves if 0 <= curve.end < self.both * curve.start]
        for critic, generator in permutations(fallen, 2):
            if _are_rivals(view, critic.place, generator.place) and not _tells_classes(view, critic, generator):
                is_turned = _is_turned(view, generator.place)
                yield self._saturating(view, generator) if is_turned else self._in_league(view, critic, generator)
                return

    def _in_league(self, view: View, critic: Curve, generator: Curve) -> Finding:
        summary = (
            f"Two rivals want the same: {critic.place.node} ({critic.start:.3g} to {critic.end:.2g}) and "
            f"{generator.place.node} ({generator.start:.3g} to {generator.end:.2g}) both fall, although one is about "
            f"telling apart what the other one makes: the generator is rewarded for being recognised (its label, or "
            f"the sign of its loss)."
        )
        shown = [
            evidence(curve.history, "mean", f"{curve.start:.3g} to {curve.end:.2g}") for curve in (generator, critic)
        ]
        makers = [place.node for place in _uncut(view, generator.place) if "." not in place.node]
        nodes = list(dict.fromkeys([critic.place.node, *makers]))
        step = int(generator.steps[0])
        return self.finding(
            view, generator.place.node, "warning", summary, shown, step=step, nodes=nodes, confidence=0.7,
            remedy="Give the generator's samples the label of real ones in the generator's own loss.",
        )  # fmt: skip

    def _saturating(self, view: View, generator: Curve) -> Finding:
        operation = view.flow.vertices[generator.place].operation
        formula = ", log(1 - D)" if operation.startswith("binary_cross_entropy") else ""
        summary = (
            f"The generator minimises the negative of its critic's loss{formula}: {generator.place.node} with a "
            f"minus. It saturates, and gives hardly a gradient, where the critic is sure: it went from "
            f"{generator.start:.3g} to {generator.end:.2g}."
        )
        shown = [evidence(generator.history, "mean", "as it falls, the generator's gradient does")]
        makers = [place.node for place in _uncut(view, generator.place) if "." not in place.node]
        return self.finding(
            view, generator.place.node, "warning", summary, shown, step=int(generator.steps[0]), confidence=0.75,
            nodes=list(dict.fromkeys(makers)), causes="The formula of the minimax game, taken as it stands.",
            remedy="Minimise the critic's loss with the label of real ones, without the minus (maximise log D).",
        )  # fmt: skip

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


def _is_turned(view: View, loss: Place) -> bool:
    """Whether a term enters its objective with a minus: it is made large."""
    weights = view.history(loss.node, "gradient", role=loss.role).of("mean")
    return len(weights) > 0 and bool(np.all(weights < 0))


def _tells_classes(view: View, *curves: Curve) -> bool:
    """Whether one of these losses has a part that tells classes, too: that may fall for both."""
    parts = view.flow.upstream([curve.place for curve in curves]) & set(view.losses)
    return any(view.flow.vertices[place].operation in OF_CLASSES for place in parts)


def _are_rivals(view: View, critic: Place, generator: Place) -> bool:
    """Whether what trains by one loss, and only it, is seen by the other one from behind a cut."""
    makers = {place for place in _uncut(view, generator) if view.flow.vertices[place].type == "parameter"}
    own = {place for place in _uncut(view, critic) if view.flow.vertices[place].type == "parameter"}
    hidden = (view.flow.upstream([critic]) & makers) - own
    return bool(hidden) and bool(makers & own) and not own - makers


def _uncut(view: View, loss: Place) -> list[Place]:
    """What a loss is computed from, with a gradient all the way."""
    return sorted(view.flow.upstream([loss], differentiable=True), key=lambda place: view.position.get(place.node, 0))
