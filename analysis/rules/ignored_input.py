"""The rule ``ignored-input``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.parameters import is_gradient_zero, trainable
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class IgnoredInput(Rule):
    """The loss does not depend on an input.

    Symptom: the loss settles where a constant answer would; changing the input changes nothing.

    How it is measured: in the joined graph of the training steps no path leads from the input to a loss. An alarm
    only if that is so for all inputs of the trial; a single one may be there for other reasons.

    Of a recurrent layer: its weights from one moment to the next get a gradient of exactly zero, those of its input do
    not, so that only one moment counts.

    Causes: a variable that was overwritten or mixed up in ``forward``, a branch that leaves the input out.

    Remedy: follow the input in the graph to where its path ends.

    Source: no threshold.
    """

    name = "ignored-input"
    causes = "A variable that was overwritten or mixed up in forward(), or a branch that leaves the input out."
    remedy = "Follow the input in the graph to where its path ends, and connect it."

    def check(self, view: View) -> Iterable[Finding]:
        yield from self._one_moment(view)
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

    def _one_moment(self, view: View) -> Iterable[Finding]:
        """Recurrent layers whose weights from one moment to the next never count, although those of the input do."""
        nodes = {parameter.node for parameter in trainable(view) if len(view.training) >= 3}
        for node in sorted(nodes):
            module, _, name = node.rpartition(".")
            if not name.startswith("weight_hh") or not is_gradient_zero(view, node):
                continue
            entering = f"{module}.{name.replace('_hh', '_ih')}"
            if entering not in nodes or is_gradient_zero(view, entering):
                continue
            backwards = name.endswith("_reverse")
            moment = "last moment, in its backward direction" if backwards else "first moment"
            summary = (
                f"Only the {moment} of what {module} reads has a say: the gradient of {node} is exactly zero in all "
                f"training steps, so that no loss depends on what comes from other moments."
            )
            shown = [evidence(view.history(node, "gradient"), "abs_max", "zero in all steps")]
            yield self.finding(
                view, module, "warning", summary, shown, step=view.training[0].number, nodes=[node], confidence=0.85,
                causes="The output is read at the wrong end (out[:, 0], or out[:, -1] of both directions), or there is "
                "one moment only.",
                remedy="Read the last state (h_n), or out[:, -1]; of a bidirectional layer both final states.",
            )  # fmt: skip
