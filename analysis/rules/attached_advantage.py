"""The rule ``attached-advantage``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.critics import critic_at
from stepscope.analysis.finding import Finding
from stepscope.analysis.lines import sites_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class AttachedAdvantage(Rule):
    """The loss of a policy trains the critic, too, towards whatever makes the policy's loss small.

    Symptom: the critic's values run away from the returns, or follow them badly; the policy learns little and noisily.

    How it is measured: in a product that a loss is made of, one factor is the logarithm of the chance of what was
    chosen (or a ratio of chances), and the other an error of a module that carries a gradient on to it, while the same
    module learns from such an error in another term.

    Causes: ``-(log_prob * advantage).mean()`` without ``advantage.detach()``.

    Remedy: ``-(log_prob * advantage.detach()).mean()``; let the critic learn from its own term alone.

    Source: Sutton & Barto (2018), section 13.5: the policy's update takes the error as a number; no threshold.
    """

    name = "attached-advantage"
    about = "loss"
    causes = "The advantage is not detached where the policy's loss multiplies it with the logarithm of the chance."
    remedy = "Detach it there: -(log_prob * advantage.detach()).mean(). The critic learns from its own loss."

    def check(self, view: View) -> Iterable[Finding]:
        for site in {site.source: site for site in sites_of(view, "attached")}.values():
            critic = critic_at(view, site)
            if not critic:
                continue
            summary = (
                f"The policy's loss reaches {critic}: the advantage is not detached, so that the critic learns to make "
                f"this loss small, and not only to foresee the returns."
            )
            yield self.finding(
                view, critic, "warning", summary, [evidence(view.history(critic), "mean", "what the critic foresees")],
                step=view.began, nodes=[*(p.node for p in site.after), view.objectives[0].node], confidence=0.85,
                source=site.source,
            )  # fmt: skip
