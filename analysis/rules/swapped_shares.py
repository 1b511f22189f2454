"""The rule ``swapped-shares``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.lines import sites_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class SwappedShares(Rule):
    """Samples are mixed by a share, and their losses by what that share leaves: mixup, the other way round.

    Symptom: training with mixed samples is far worse than without, the more so the more unequal the shares are.

    How it is measured: in the step, a sum of two products has the data with one number, and the same data in another
    order with one minus it; and a sum of two losses has that of the targets in the same order with *one minus* it, that
    of those in the other order with the number itself. Shares of a half say nothing.

    Causes: the pairs of shares and targets in another order than for the samples.

    Remedy: ``share * loss(scores, y) + (1 - share) * loss(scores, y[other])``, where the samples are
    ``share * x + (1 - share) * x[other]``.

    Source: Zhang et al. (2018), mixup. The shares are compared to four digits.
    """

    name = "swapped-shares"
    about = "loss"
    causes = "The shares of the losses are in another order than those of the samples."
    remedy = "share * loss(scores, y) + (1 - share) * loss(scores, y[other]), with the share of the samples' own part."

    def check(self, view: View) -> Iterable[Finding]:
        for site in sites_of(view, "swapped shares")[:1]:
            loss = next((place.node for place in site.after), view.objectives[0].node)
            summary = (
                f"Samples are mixed (mixup) with those of a batch in another order, and {loss} has their targets with "
                f"the shares swapped: the other sample's part weighs what its own should."
            )
            nodes = [place.node for place in site.before if place.node != loss]
            yield self.finding(
                view, loss, "error", summary, [evidence(view.history(loss), "mean", "the loss")],
                step=view.began, nodes=nodes, confidence=0.95, source=site.source,
            )  # fmt: skip
