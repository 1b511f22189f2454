"""The rule ``exponential-loss``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.lines import sites_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class ExponentialLoss(Rule):
    """What is minimised is the exponential of a loss, whose slope grows with the loss without bounds.

    Symptom: training goes well, or fairly, until one bad batch, whose gradients throw the weights away.

    How it is measured: a number that feeds what is minimised is the exponential of one of torch's losses, perhaps after
    a division. A perplexity that is only looked at is none.

    Causes: a perplexity that is minimised in place of its logarithm; ``torch.exp(loss / eta)`` of some robust
    optimisation, without what bounds it there.

    Remedy: minimise the loss itself, which has its minimum at the same place; a soft maximum over groups is
    ``logsumexp``.

    Source: no threshold; the derivative of ``exp(loss)`` is ``exp(loss)`` times that of the loss.
    """

    name = "exponential-loss"
    about = "loss"
    causes = "A perplexity that is minimised, or an exponential weighting of losses without its logarithm."
    remedy = "Minimise the loss itself, which has the same minimum; a soft maximum of several losses is logsumexp."

    def check(self, view: View) -> Iterable[Finding]:
        learned = view.flow.upstream(view.objectives) | set(view.objectives)
        for site in {site.source: site for site in sites_of(view, "exponential")}.values():
            loss = next((place for place in site.after if place in learned), None)
            if loss is None:
                continue
            history = view.history(loss.node, role=loss.role, training=False)
            summary = (
                f"{loss.node} is the exponential of a loss, exp(...): a batch whose loss is larger by 1 counts 2.7 "
                f"times as much, one that is larger by 5 counts 150 times, and a single bad batch can ruin the weights."
            )
            nodes = [place.node for place in site.before if place.node != loss.node]
            yield self.finding(
                view, loss.node, "warning", summary, [evidence(history, "mean", "exp of a loss")], step=view.began,
                nodes=list(dict.fromkeys(nodes)), source=site.source, confidence=0.9,
            )  # fmt: skip
