"""The rule ``unbounded-loss``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.curves import LEAST_POINTS, Curve, loss_curves
from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.free_scores import free_scores
from stepscope.analysis.history import Values
from stepscope.analysis.loss_inputs import SMALL, is_floating
from stepscope.analysis.one_sided import OneSided, one_sided
from stepscope.analysis.robust import median
from stepscope.analysis.rule import Rule
from stepscope.analysis.shares import shares_without_sigmoid
from stepscope.analysis.view import View, evidence

_OF_LABELS = frozenset(
    ["multilabel_soft_margin_loss", "soft_margin_loss", "multilabel_margin_loss", "multi_margin_loss"]
)
"""Losses of torch's that have a bound, and push away a label that never occurs."""


@dataclass(frozen=True)
class UnboundedLoss(Rule):
    """The loss falls below zero, faster and faster: it has no minimum.

    Symptom: a loss curve that looks better than it can be, while activations and weights grow.

    How it is measured: the loss of a training with one objective is negative at the end, many times larger than at the
    start, and the second half of the steps lowered it by far more than the first. Densities have negative losses, too,
    but approach a bound. Or the gradient of a well-known loss (a cross-entropy, a mean square) is negative in every
    step, and nothing else is in the objective.

    Or, where nothing but a loss of one's own is minimised: the gradient of a feature of a layer has one sign for every
    kept sample of every step that is looked at, the feature moves that way, away from all targets, and does not stop.
    Nothing holds against it. Classes are left out: one that never occurs is pushed away for ever, and rightly so.

    Or a layer's scores are taken for shares: within a sample their gradient has two values only, one for each answer of
    the targets, whatever the scores are, and others in each sample. An overlap (Dice, IoU, Tversky) does that where no
    sigmoid lies between; scores below zero can make it as large, or small, as they like.

    Or the gradient of a net's scores is the same for all samples of a call, up for some and down for others, and the
    scores grow on and on: a critic that nothing holds.

    Causes: a term with the wrong sign, a likelihood of raw scores instead of log-probabilities, labels outside of 0 to
    1 in a binary cross-entropy, a distance that is to grow without a margin, a variance or a confidence that costs
    nothing.

    Remedy: write down the smallest value that each term of the loss can have; give those without one a bound.

    Attributes:
        growth: times the size of the first losses (or 1). Source: a density would have to become that many nats
            sharper in the run.
        least_steps: in shorter runs such a feature may only be on its way.
        way: how far such a feature must have moved. Source: 0.5 is that of a factor of 1.6 in a logarithm.
        apart, still: how many times larger than at the start such scores must be, and than in the middle of the steps.
            Source: of ours; with a penalty they grow to a few times the data's own distances, and stay there.
        speed: times the fall of the first half. Source: a loss that approaches a bound falls less in the second half.
    """

    name = "unbounded-loss"
    about = "loss"
    causes = "A term with the wrong sign, raw scores where log-probabilities are wanted, or labels outside of 0 to 1."
    remedy = "Write down the smallest value that each term of the loss can have, and bound those that have none."
    growth: float = 10.0
    speed: float = 2.0
    way: float = 0.5
    least_steps: int = 75
    apart: float = 200.0
    still: float = 1.5

    def check(self, view: View) -> Iterable[Finding]:
        for place, sizes in free_scores(view, times=self.apart, still=self.still):
            yield self._of_scores(view, place, sizes)
        if len(view.objectives) != 1:
            return
        turned = _turned(view)
        if turned is not None:
            yield self._of_sign(view, turned)
            return
        unbounded = [curve for curve in loss_curves(view) if self._is_unbounded(curve)]
        yield from (self._finding(view, curve) for curve in unbounded)
        if not unbounded and _length(view) >= self.least_steps and _is_of_its_own(view):
            free = [
                found
                for found in one_sided(view, self.way)
                if _moves_away(view, found) and not _is_of_chances(view, found)
            ]
            yield from (self._of_one_side(view, found) for found in free[:1])
        for place in shares_without_sigmoid(view):
            yield self._of_shares(view, place)

    def _of_scores(self, view: View, place: Place, sizes: Values) -> Finding:
        history = view.history(place.node, role=place.role)
        summary = (
            f"Nothing bounds the scores of {place.node}: its loss pushes them apart by the same force for ever, and "
            f"they have grown from {sizes[0]:.2g} to {sizes[-1]:.3g}, without a penalty on its slope (Lipschitz)."
        )
        return self.finding(
            view, place.node, "error", summary, [evidence(history, "abs_max", "they grow on and on")],
            step=view.began, nodes=[loss.node for loss in view.objectives[:1]], confidence=0.85,
            causes="A critic of a Wasserstein GAN without a gradient penalty, clipped weights or a spectral norm.",
            remedy="Add a gradient penalty (WGAN-GP), normalise its weights (spectral_norm), or use a hinge loss.",
        )  # fmt: skip

    def _of_sign(self, view: View, term: Place) -> Finding:
        weight = view.history(term.node, "gradient", role=term.role)
        summary = (
            f"{term.node} ({view.flow.vertices[term].operation}) has the wrong sign: it is all that is minimised, "
            f"with a weight of {weight.of('mean')[0]:.3g}, so that what should be small is made large, without bound."
        )
        shown = [evidence(view.history(term.node, role=term.role), "mean", "it is made to grow")]
        step, nodes = int(weight.steps[0]), [place.node for place in view.objectives]
        return self.finding(view, term.node, "error", summary, shown, step=step, nodes=nodes, confidence=0.9)

    def _of_shares(self, view: View, place: Place) -> Finding:
        history = view.history(place.node, role=place.role)
        low, high = float(history.of("min")[0]), float(history.of("max")[0])
        summary = (
            f"The loss takes the scores of {place.node} ({low:.3g} to {high:.3g} in the first step) for shares of 0 to "
            f"1: their gradient is the same whatever they are. Without a sigmoid (or softmax) they are no "
            f"probabilities, and the loss can fall below zero."
        )
        (objective,) = view.objectives
        return self.finding(
            view, objective.node, "warning", summary, [evidence(history, "min", "scores below zero")],
            step=view.began, nodes=[place.node], confidence=0.85,
            causes="An overlap (Dice, IoU, Tversky, F1) of raw scores.",
            remedy="Apply a sigmoid, or a softmax over the classes, before the overlap is computed.",
        )  # fmt: skip

    def _of_one_side(self, view: View, free: OneSided) -> Finding:
        (objective,) = view.objectives
        node = free.place.node
        summary = (
            f"The loss has no minimum in feature {free.feature} of {node}: its gradient has one sign for every sample, "
            f"in every step, so that it moves on without end (by {free.way:+.3g} so far); nothing has a price there, "
            f"as the log of a variance, or of a confidence, would."
        )
        shown = [
            evidence(view.history(node), "abs_max", "it moves on"),
            evidence(view.history(objective.node, role=objective.role), "mean", "the loss"),
        ]
        return self.finding(
            view, objective.node, "warning", summary, shown, step=view.began, nodes=[node], confidence=0.8,
            causes="A variance, a scale or a confidence that makes the loss small, and costs nothing.",
            remedy="Add what it costs: the log of the variance (of the scale), or a penalty on low confidence.",
        )  # fmt: skip

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


def _is_of_its_own(view: View) -> bool:
    """Whether no loss has a well-known formula, and none is given classes."""
    sources = {link.place for loss in view.losses for link in view.flow.sources.get(loss, ())}
    targets = [place for place in sources if view.flow.vertices[place].type in ("target", "input")]
    known = any(view.flow.vertices[loss].operation in SMALL | _OF_LABELS for loss in view.losses)
    return not known and all(is_floating(view, place) for place in targets)


def _moves_away(view: View, free: OneSided) -> bool:
    """Whether a feature ends farther from the targets than it began: else it may only be on its way."""
    targets = [view.history(place.node, role=place.role) for place in view.flow.of_type("target")]
    centres = [median(history.of("mean")) for history in targets if len(history)]
    return all(abs(free.end - centre) > abs(free.end - free.way - centre) for centre in centres)


def _is_of_chances(view: View, free: OneSided) -> bool:
    """Whether the layer gives a number for each of the data, which are 0 to 1: where all are 0, it rightly falls."""
    shape = view.shape(free.place, view.training[-1])
    data = [place for place in view.flow.of_type("target", "input") if view.shape(place, view.training[-1]) == shape]
    ends = ((view.history(p.node, role=p.role).of("min"), view.history(p.node, role=p.role).of("max")) for p in data)
    return any(len(low) > 0 and low.min() == 0 and high.max() == 1 for low, high in ends)


def _length(view: View) -> int:
    return view.training[-1].number - view.began if view.training else 0


def _turned(view: View) -> Place | None:
    """A loss with a well-known formula that is the only source of the objective, with a weight below zero."""
    (objective,) = view.objectives
    sources = [link.place for link in view.flow.sources.get(objective, ()) if link.differentiable]
    terms = [place for place in sources if view.flow.vertices[place].operation in SMALL]
    if len(sources) != 1 or not terms:
        return None
    weights = view.history(terms[0].node, "gradient", role=terms[0].role).of("mean")
    return terms[0] if len(weights) > 2 and bool((weights < 0).all()) else None
