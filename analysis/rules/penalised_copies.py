"""The rule ``penalised-copies``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.parameters import Parameter, has_gradient, listed, trainable
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class PenalisedCopies(Rule):
    """A penalty is taken of weights that the net does not work with, beside others of the same shape that it uses.

    Symptom: the penalty falls as it should, and the net overfits as if there were none.

    How it is measured: parameters of two dimensions or more that enter a loss directly, and nothing else, while another
    parameter of the same module and shape is what the net computes with, and does not enter that loss. Both have
    gradients.

    Causes: a second set of means and deviations (a prior, a posterior) that was left over from a rewriting; a
    divergence between the wrong pair of them.

    Remedy: take the penalty of the weights that ``forward`` uses, and delete the others.

    Source: kumar-shridhar/PyTorch-BayesianCNN issue 7.
    """

    name = "penalised-copies"
    about = "loss"
    causes = "A second set of weights that was left over, or a divergence between the wrong pair of them."
    remedy = "Take the penalty of the weights that forward uses, and delete the others."

    def check(self, view: View) -> Iterable[Finding]:
        losses = set(view.losses)
        learning = [p for p in trainable(view) if len(p.shape) > 1 and has_gradient(view, p.node)]
        sinks = {parameter: _sinks(view, parameter) for parameter in learning}
        only = [parameter for parameter in learning if sinks[parameter] and sinks[parameter] <= losses]
        used = [parameter for parameter in learning if sinks[parameter] and not sinks[parameter] & losses]
        beside = {one: [other for other in used if _is_twin(one, other)] for one in only}
        found = [one for one in only if beside[one]]
        if found:
            yield self._finding(view, found, beside[found[0]], sinks[found[0]])

    def _finding(self, view: View, found: list[Parameter], used: list[Parameter], losses: set[Place]) -> Finding:
        nodes = [parameter.node for parameter in found]
        loss = min(losses).node
        summary = (
            f"{listed(nodes)} learn from a penalty (a divergence, say) in {loss} only: the net does not work with "
            f"them. It works with {listed(parameter.node for parameter in used)}, of which no penalty is taken."
        )
        shown = [evidence(view.history(nodes[0]), "norm", "moved by the penalty alone")]
        return self.finding(
            view, nodes[0], "warning", summary, shown, step=view.began, confidence=0.8,
            nodes=[*nodes[1:], *(parameter.node for parameter in used), loss],
        )  # fmt: skip


def _sinks(view: View, parameter: Parameter) -> set[Place]:
    places = view.flow.of_node(parameter.node)
    return {link.place for place in places for link in view.flow.sinks.get(place, ()) if link.differentiable}


def _is_twin(one: Parameter, other: Parameter) -> bool:
    return (one.module, one.shape) == (other.module, other.shape)
