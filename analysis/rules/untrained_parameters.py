"""The rule ``untrained-parameters``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.optimizers import held_by, watched
from stepscope.analysis.parameters import (
    Parameter,
    gather,
    has_gradient,
    in_sentence,
    is_gradient_zero,
    is_left_over,
    is_unchanged,
    listed,
    trainable,
)
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class UntrainedParameters(Rule):
    """Parameters that get a gradient but are in no optimizer, which may hold the tensors of another model instead.

    Symptom: a part of the net stays as it was initialised; or all of it does.

    How it is measured: the table of the model's parameters says which of the watched optimizers hold each. It counts if
    an optimizer is watched and the parameter gets a gradient, but does not change in three or more recorded steps. A
    gradient that does not change either is left over from an earlier training (of a teacher). If an optimizer holds
    none of a net's parameters, and nothing changes in it, gradients need not arrive: they may be given to copies.

    Causes: the optimizer was made before a layer was added or replaced, before the model was copied or moved
    by something that makes new tensors, or from one of several models only.

    Remedy: make the optimizer last, from all parameters that are to learn; freeze the others
    (``requires_grad_(False)``).

    Source: no threshold.
    """

    name = "untrained-parameters"
    about = "optimizer"
    causes = "The optimizer was made before a layer was added, replaced or copied, or from a part of the model only."
    remedy = "Make the optimizer once the model is complete, from all that is to learn; freeze what is not."

    def check(self, view: View) -> Iterable[Finding]:
        optimizers, holders = watched(view), held_by(view)
        if not optimizers or not view.training:
            return
        found = [
            parameter
            for parameter in trainable(view)
            if not holders.get(parameter.node)
            and has_gradient(view, parameter.node)
            and not is_gradient_zero(view, parameter.node)
            and not is_left_over(view, parameter.node)
            and is_unchanged(view, parameter.node)
        ]
        stale = [name for name in optimizers if not any(name in names for names in holders.values())]
        if not found and len(stale) == len(optimizers):
            everything = [parameter for parameter in trainable(view) if is_unchanged(view, parameter.node)]
            learns = any(has_gradient(view, place.node) for place in view.flow.of_type("calculated"))
            found = everything if learns and len(everything) == len(trainable(view)) else []
        if found:
            yield self._finding(view, found, stale)

    def _finding(self, view: View, found: list[Parameter], stale: list[str]) -> Finding:
        nodes = [parameter.node for parameter in found]
        where = listed(gather(view, found))
        if stale:
            summary = (
                f"{listed(stale)} holds none of the model's parameters but other tensors, so that nothing changes "
                f"{in_sentence(nodes)} in {len(view.training)} training steps."
            )
        else:
            summary = (
                f"{where}: no optimizer holds {in_sentence(nodes)}; gradients arrive, but nothing changes in "
                f"{len(view.training)} training steps."
            )
        shown = [evidence(view.history(nodes[0]), "norm", "its value is always the same")]
        if has_gradient(view, nodes[0]):
            shown.append(evidence(view.history(nodes[0], "gradient"), "norm", "its gradient is not zero"))
        return self.finding(
            view, nodes[0], "error" if stale else "warning", summary, shown,
            step=view.began, nodes=nodes[1:], confidence=0.95,
        )  # fmt: skip
