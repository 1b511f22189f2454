"""The rule ``rare-updates``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.changing import steps_between_changes
from stepscope.analysis.finding import Finding
from stepscope.analysis.parameters import learning
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class RareUpdates(Rule):
    """The weights change only once in many steps, though gradients are computed in all of them.

    Symptom: the loss falls in stairs, and slowly: hundreds of batches are worth a few steps.

    How it is measured: the recorded weights are the same, bit for bit, as at the recorded step before, in most pairs of
    steps, and yet change again and again.

    Causes: gradients that are added up over too many batches; ``step()`` under a condition that rarely holds; a scaler
    of mixed precision that skips steps because gradients overflow.

    Remedy: step more often; look at the condition, and at what the scaler says.

    Attributes:
        many: the steps between two changes from which on it is worth knowing. Source: 8 small batches are often added
            up for a large one, to save memory.
    """

    name = "rare-updates"
    about = "optimizer"
    causes = "Gradients added up over too many batches, a condition around step(), or a loss scaler that skips steps."
    remedy = "Step more often; look at the condition around step(), and at the loss scale."
    many: int = 12

    def check(self, view: View) -> Iterable[Finding]:
        nodes = learning(view)
        between = steps_between_changes(view, nodes)
        if between is None or between < self.many:
            return
        summary = (
            f"The weights change only once in about {between} steps, though gradients are computed in all of them: "
            f"too many batches are added up before step(), or it is skipped."
        )
        shown = [evidence(view.history(nodes[0]), "norm", "changes now and then")]
        yield self.finding(
            view, nodes[0], "warning", summary, shown, step=view.training[0].number, nodes=nodes[1:], confidence=0.8
        )
