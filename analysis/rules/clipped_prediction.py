"""The rule ``clipped-prediction``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.distributions import kept
from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place, Site
from stepscope.analysis.lines import sites_of
from stepscope.analysis.loss_inputs import SMALL
from stepscope.analysis.robust import median
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store import Step

_MOST_STEPS = 10
_ROUNDING = 1.001
_BOUNDED = frozenset(["sigmoid", "softmax", "tanh", "hardsigmoid", "hardtanh"])
"""What has brought an output into a range already: a clamp behind it is a guard, of a logarithm say."""

_MISTAKEN = "The loss was clipped where its gradient was meant."
_CLIP_GRADIENTS = "Clip gradients by clip_grad_norm_ between backward and step; or use huber_loss."


@dataclass(frozen=True)
class ClippedPrediction(Rule):
    """What a net predicts, or a loss, is clipped, and much of it lies beyond the limits: it gets no gradient there.

    Symptom: the loss settles early, or does not fall; gradients are zero for many samples, or for all.

    How it is measured: a ``clamp`` of a net's output on the way to a loss, with nothing that learns behind it, and the
    share of the kept numbers of that output that lie beyond its limits, early and late. Or a ``clamp`` of the losses of
    single samples, above which most of what they add up to lies; or one of a term of the loss, if the loss itself
    stands at its limit.

    Causes: a missing sigmoid before a cross-entropy by hand, whose ``clip`` then hides it; a clamp to the targets'
    range that was meant for inference; a loss that was clipped where its gradient was meant.

    Remedy: bring the output into its range by a sigmoid or tanh, or give the loss what was not clipped; clip gradients
    by ``clip_grad_norm_``, and let outliers count less by ``huber_loss``.

    Attributes:
        heavy, rare: the part of all losses above the limit that counts, if more than this share of the samples has
            them. Source: of ours; a guard against outliers takes few samples, most of whose loss is that of others.
        full: the part of the upper limit that the loss has in the median of the steps. Source: of ours.
        beyond: the share beyond the limits, at the beginning or at the end, that counts. Source: of ours; guards
            against a logarithm of zero clip next to nothing.
    """

    name = "clipped-prediction"
    causes = "A missing sigmoid, which a clip before the logarithm hides, or a clamp that was meant for inference."
    remedy = "Bring the output into its range by a sigmoid or tanh, or give the loss what was not clipped."
    beyond: float = 0.25
    heavy: float = 0.5
    rare: float = 0.05
    full: float = 0.9

    def check(self, view: View) -> Iterable[Finding]:
        for site in sites_of(view, "cap"):
            yield from self._of_term(view, site)
        for site in sites_of(view, "clip"):
            if len(site.before) == 1 and _leads_to_a_loss(view, site):
                (place,) = site.before
                operation = view.flow.vertices[place].operation
                if operation in SMALL:
                    yield from self._of_losses(view, site, place)
                elif operation not in _BOUNDED:
                    yield from self._of(view, site, place)

    def _of_term(self, view: View, site: Site) -> Iterable[Finding]:
        """A loss that is as large as one of its terms can be."""
        limit = float(site.operation.partition("(")[2].rstrip(")"))
        for loss in view.objectives:
            history = view.history(loss.node, role=loss.role)
            sizes = history.of("mean")
            if loss not in site.after or not limit > 0 or not len(sizes):
                continue
            level = median(sizes)
            if self.full * limit <= level <= limit * _ROUNDING:
                summary = (
                    f"{loss.node} stands at {level:.3g}, where it is clipped at {limit:g} (clamp): what lies above "
                    f"gets no gradient, so that what is worst is never learned."
                )
                shown = [evidence(history, "mean", f"the limit is {limit:g}")]
                yield self.finding(
                    view, loss.node, "warning", summary, shown, step=view.began, confidence=0.8, source=site.source,
                    nodes=[other.node for other in site.before],
                    causes=_MISTAKEN, remedy=_CLIP_GRADIENTS,
                )  # fmt: skip

    def _of_losses(self, view: View, site: Site, place: Place) -> Iterable[Finding]:
        _, high = _limits(site)
        losses = kept(view.training[-_MOST_STEPS:], place)
        above = losses > high
        if not above.any() or above.mean() < self.rare or losses[above].sum() < self.heavy * losses.sum():
            return
        summary = (
            f"The losses of single samples are clipped at {high:g}: {above.mean():.0%} of them lie above at the end, "
            f"{losses[above].sum() / losses.sum():.0%} of all that is wrong, and get no gradient: what is worst is "
            f"never learned."
        )
        shown = [evidence(view.history(place.node, role=place.role), "max", "the worst")]
        yield self.finding(
            view, place.node, "warning", summary, shown,
            step=view.began, confidence=0.8, nodes=[other.node for other in site.after],
            source=site.source, causes=_MISTAKEN, remedy=_CLIP_GRADIENTS,
        )  # fmt: skip

    def _of(self, view: View, site: Site, place: Place) -> Iterable[Finding]:
        low, high = _limits(site)
        early, late = (
            _share_beyond(steps, place, low, high)
            for steps in (view.training[:_MOST_STEPS], view.training[-_MOST_STEPS:])
        )
        if max(early, late) >= self.beyond:
            summary = (
                f"The loss gets {place.node} clipped to {low:g}..{high:g}, without a sigmoid or the like that would "
                f"bring it there: {early:.0%} of it lie beyond the limits in the first steps, {late:.0%} in the last, "
                f"and get no gradient."
            )
            history = view.history(place.node, role=place.role)
            shown = [evidence(history, "min", "its smallest number"), evidence(history, "max", "its largest")]
            yield self.finding(
                view, place.node, "warning", summary, shown, step=view.began, confidence=0.8,
                nodes=[other.node for other in site.after], source=site.source,
            )  # fmt: skip


def _leads_to_a_loss(view: View, site: Site) -> bool:
    """Whether a loss is computed from what was clipped, and no weights are used on the way."""
    behind = view.flow.downstream(site.after)
    if behind.isdisjoint(view.losses):
        return False
    sources = (link.place for place in behind for link in view.flow.sources.get(place, ()))
    return not any(view.flow.vertices[source].type == "parameter" for source in sources)


def _limits(site: Site) -> tuple[float, float]:
    """Of ``clamp(0, 1)``."""
    low, high = site.operation.partition("(")[2].rstrip(")").split(",")
    return float(low), float(high)


def _share_beyond(steps: list[Step], place: Place, low: float, high: float) -> float:
    values = kept(steps, place)
    return float(np.mean((values < low) | (values > high))) if values.size else 0.0
