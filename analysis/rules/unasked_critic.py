"""The rule ``unasked-critic``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.critics import critic_at
from stepscope.analysis.finding import Finding
from stepscope.analysis.lines import sites_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class UnaskedCritic(Rule):
    """A critic learns to foresee returns, and the policy's loss weighs choices by the returns themselves.

    Symptom: the policy learns slowly and noisily, as if there were no critic, though the critic's loss falls.

    How it is measured: a product that a loss is made of has the logarithm of the chance of what was chosen, and data
    that no module had a part in; a term of the same loss compares a module with the same data.

    Causes: ``-(log_prob * returns).mean()`` where ``returns - values.detach()`` was meant.

    Remedy: weigh choices by the advantage, ``returns - values.detach()``.

    Source: Sutton & Barto (2018), section 13.4, REINFORCE with baseline; no threshold.
    """

    name = "unasked-critic"
    about = "loss"
    causes = "The returns weigh the choices, not what they exceed the critic's values by."
    remedy = "Weigh by the advantage: -(log_prob * (returns - values.detach())).mean()."

    def check(self, view: View) -> Iterable[Finding]:
        for site in {site.source: site for site in sites_of(view, "unasked")}.values():
            critic = critic_at(view, site)
            if not critic:
                continue
            summary = (
                "Choices are weighed by the very returns that a critic is trained to foresee: what it foresees is not "
                "subtracted, it has no say as a baseline (no advantage)."
            )
            yield self.finding(
                view, critic, "warning", summary, [evidence(view.history(critic), "mean", "what nobody asks for")],
                step=view.began, nodes=[p.node for p in site.after], confidence=0.8, source=site.source,
            )  # fmt: skip
