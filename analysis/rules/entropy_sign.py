"""The rule ``entropy-sign``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.lines import sites_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class EntropySign(Rule):
    """The entropy of a policy is added to its loss: descent makes the policy sure of itself before it knows anything.

    Symptom: a policy soon does the same everywhere, and the reward stays where that leads.

    How it is measured: the recorder walks back from the loss and counts signs. A product of probabilities with their
    logarithms has a minus in it, so that the entropy has a plus, beside logarithms of probabilities that are multiplied
    with data, as in a policy gradient. An entropy alone is left out: to minimise it is a way to learn without labels.

    Causes: a bonus that was meant to be maximised, in a loss that is minimised.

    Remedy: subtract it: ``loss = policy_loss + value_loss - weight * entropy``.

    Source: Mnih et al. (2016), asynchronous advantage actor-critic: the entropy is a bonus. No threshold.
    """

    name = "entropy-sign"
    about = "loss"
    causes = "The entropy is a bonus that is to grow, in a loss that is made small."
    remedy = "Subtract it: loss = policy_loss + value_loss - weight * entropy."

    def check(self, view: View) -> Iterable[Finding]:
        for site in {site.source: site for site in sites_of(view, "entropy")}.values():
            made = [place.node for place in site.before if view.flow.vertices[place].type == "calculated"]
            loss = next(iter(site.after)).node if site.after else view.objectives[0].node
            of = made[-1] if made else "the policy"
            summary = (
                f"{loss} has the entropy of {of} with a plus, beside a policy gradient: descent makes it small, so "
                f"that the policy becomes deterministic early (wrong sign?)."
            )
            yield self.finding(
                view, loss, "warning", summary, [evidence(view.history(loss), "mean", "with the entropy in it")],
                step=view.began, nodes=made, confidence=0.85, source=site.source,
            )  # fmt: skip
