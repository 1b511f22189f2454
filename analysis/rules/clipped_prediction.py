"""The rule ``clipped-prediction``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.distributions import kept
from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place, Site
from stepscope.analysis.lines import sites_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store import Step

_MOST_STEPS = 10


@dataclass(frozen=True)
class ClippedPrediction(Rule):
    """What a net predicts is clipped before the loss, and much of it lies beyond the limits: it gets no gradient there.

    Symptom: the loss settles early, or does not fall; gradients are zero for many samples, or for all.

    How it is measured: a ``clamp`` of a net's output on the way to a loss, with nothing that learns behind it, and the
    share of the kept numbers of that output that lie beyond its limits, early and late.

    Causes: a missing sigmoid before a cross-entropy by hand, whose ``clip`` then hides it; a clamp to the targets'
    range that was meant for inference.

    Remedy: bring the output into its range by a sigmoid or tanh, or give the loss what was not clipped.

    Attributes:
        beyond: the share beyond the limits, at the beginning or at the end, that counts. Source: of ours; guards
            against a logarithm of zero clip next to nothing.
    """

    name = "clipped-prediction"
    causes = "A missing sigmoid, which a clip before the logarithm hides, or a clamp that was meant for inference."
    remedy = "Bring the output into its range by a sigmoid or tanh, or give the loss what was not clipped."
    beyond: float = 0.25

    def check(self, view: View) -> Iterable[Finding]:
        for site in sites_of(view, "clip"):
            if len(site.before) == 1 and _leads_to_a_loss(view, site):
                yield from self._of(view, site, next(iter(site.before)))

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
                view, place.node, "warning", summary, shown, step=view.training[0].number, confidence=0.8,
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
