"""The rule ``ignored-input``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class IgnoredInput(Rule):
    """The loss does not depend on an input.

    Symptom: the loss settles where a constant answer would; changing the input changes nothing.

    How it is measured: in the joined graph of the training steps no path leads from the input to a loss. An alarm
    only if that is so for all inputs of the trial; a single one may be there for other reasons.

    Causes: a variable that was overwritten or mixed up in ``forward``, a branch that leaves the input out.

    Remedy: follow the input in the graph to where its path ends.

    Source: no threshold.
    """

    name = "ignored-input"
    causes = "A variable that was overwritten or mixed up in forward(), or a branch that leaves the input out."
    remedy = "Follow the input in the graph to where its path ends, and connect it."

    def check(self, view: View) -> Iterable[Finding]:
        inputs = view.flow.of_type("input")
        if not view.training or not view.losses or not inputs:
            return
        used = view.flow.upstream(view.losses)
        ignored = list(dict.fromkeys(place.node for place in inputs if place not in used))
        ignored = [node for node in ignored if not any(place in used for place in view.flow.of_node(node))]
        nothing_used = not any(place in used for place in inputs)
        for node in ignored:
            summary = f"No loss depends on {node}: no path leads from it to {view.objectives[0].node}."
            shown = [evidence(view.history(node), "mean", "the input")]
            yield self.finding(
                view, node, "warning" if nothing_used else "info", summary, shown, step=view.training[0].number
            )
