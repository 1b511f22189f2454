"""The rule ``greatest-answer``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.lines import sites_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class GreatestAnswer(Rule):
    """What an action led to is learned as the value of the best action, whichever was taken.

    Symptom: the values of all actions become alike; the policy is no better than chance though the loss falls.

    How it is measured: what is compared in a loss, with a gradient, is the maximum of what a module gave, and so is
    what it is compared with (without a gradient, with something added): the target of Q-learning. There the prediction
    has to be the value of the action that was taken.

    Causes: ``q(state).max(1)`` for prediction and target, where the prediction needs ``gather``.

    Remedy: ``q(state).gather(1, action[:, None])``.

    Source: Mnih et al. (2015), and PyTorch's tutorial on it; no threshold.
    """

    name = "greatest-answer"
    about = "loss"
    causes = "The maximum over the actions is taken of the prediction, too, not of the target alone."
    remedy = "Choose the value of the action that was taken: q(state).gather(1, action[:, None])."

    def check(self, view: View) -> Iterable[Finding]:
        for site in {site.source: site for site in sites_of(view, "greatest")}.values():
            made = [place.node for place in site.before if view.flow.vertices[place].type == "calculated"]
            if not made:
                continue
            node = made[-1]
            summary = (
                f"The greatest number of {node} is trained towards a target that is made of the greatest one, too: "
                f"what the taken action led to is learned for the best one (no gather() of the chosen action)."
            )
            loss = view.objectives[0].node
            yield self.finding(
                view, node, "warning", summary, [evidence(view.history(node), "mean", "its greatest counts")],
                step=view.began, nodes=[*(p.node for p in site.after), loss], confidence=0.85,
                source=site.source,
            )  # fmt: skip
