"""The rule ``no-gradient``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.parameters import (
    Parameter,
    gather,
    has_gradient,
    in_sentence,
    is_gradient_zero,
    listed,
    trainable,
)
from stepscope.analysis.robust import largest
from stepscope.analysis.rule import Rule
from stepscope.analysis.rules.module_never_called import is_unused
from stepscope.analysis.twins import copies
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class NoGradient(Rule):
    """Trainable parameters that get no gradient, or one that is exactly zero, in every training step.

    Symptom: the parameters stay as they were, or only shrink (weight decay moves what has no gradient, too: a change
    is no proof of learning).

    How it is measured: other parameters of the trial have gradients; these have none in any recorded training step
    although something uses them, but no loss does; or all elements of all their gradients are zero. A weight whose
    gradient is zero while its bias has one is told apart: zeros go into its layer, or only
    what it makes of zeros (padding) counts. A bias alone is worth knowing only:
    its effect cancels out, as in a difference or before a normalisation. Parameters before a cut are reported by
    ``gradient-cut``, those of modules that are not in use by ``module-never-called``.

    Causes: an output that enters no loss, units that are all dead, a factor of zero, a mask over everything.

    Remedy: follow the graph from the parameter towards the loss, to where the gradient becomes zero.

    Source: no threshold.
    """

    name = "no-gradient"
    causes = "What is computed from them enters no loss, or is multiplied by zero on the way (dead units, a mask)."
    remedy = "Follow the graph from there towards the loss, to the first node whose gradient is not zero."

    def check(self, view: View) -> Iterable[Finding]:
        parameters = trainable(view)
        if not any(has_gradient(view, parameter.node) for parameter in parameters):
            return
        towards_loss = view.flow.upstream(view.losses)
        copied = {node for copy in copies(view) for node in copy.parameters}  # a moving average learns otherwise
        missing = [
            parameter
            for parameter in parameters
            if not has_gradient(view, parameter.node)
            and not is_unused(view, parameter)
            and parameter.node not in copied
            and not any(place in towards_loss for place in view.flow.of_node(parameter.node))
        ]
        if missing:
            yield self._missing(view, missing)
        zero = [parameter for parameter in parameters if is_gradient_zero(view, parameter.node)]
        if zero and len(view.training) >= 3:
            fed_zeros = [parameter for parameter in zero if _fed_zeros(parameter, parameters, zero)]
            yield from (self._fed_zeros(view, parameter) for parameter in fed_zeros)
            rest = [parameter for parameter in zero if parameter not in fed_zeros]
            if rest:
                yield self._zero(view, rest, "info" if _cancel(rest, zero) else "warning")

    def _missing(self, view: View, group: list[Parameter]) -> Finding:
        nodes = [parameter.node for parameter in group]
        summary = (
            f"{listed(gather(view, group))}: no gradient arrives at {in_sentence(nodes, 'trainable parameter')} in "
            f"{len(view.training)} training steps, from which no loss is computed."
        )
        shown = [evidence(view.history(nodes[0]), "norm", "its value")]
        level: Level = "info" if all(_has_sibling(view, parameter) for parameter in group) else "warning"
        return self.finding(view, nodes[0], level, summary, shown, step=view.began, nodes=nodes[1:])

    def _fed_zeros(self, view: View, weight: Parameter) -> Finding:
        where = f"the gradient of {weight.node} is exactly zero in all training steps, that of its bias is not"
        summary = f"What goes into {weight.module} is zero: {where}."
        if _differs(view, weight.module):
            summary = (
                f"Only zeros that go into {weight.module} count: {where}. A mask may hide what is no padding, "
                f"and leave the padding."
            )
        shown = [evidence(view.history(weight.node, "gradient"), "abs_max", "zero in all steps")]
        causes = "The input is overwritten, masked, multiplied by zero or made by zeros_like before it gets there."
        remedy = f"Follow what goes into {weight.module} back to where it becomes zero."
        return self.finding(
            view, weight.node, "warning", summary, shown, step=view.began, nodes=[weight.module],
            causes=causes, remedy=remedy,
        )  # fmt: skip

    def _zero(self, view: View, group: list[Parameter], level: Level) -> Finding:
        nodes = [parameter.node for parameter in group]
        history = view.history(nodes[0], "gradient")
        summary = (
            f"{listed(gather(view, group))}: the gradients of {in_sentence(nodes)} are exactly zero in all "
            f"{len(history) or len(view.training)} training steps."
        )
        update = view.history(nodes[0], "update")
        if len(update) and largest(update.of("abs_max")) > 0:
            summary += f" Values change nevertheless (by up to {largest(update.of('abs_max')):.2g}): weight decay."
        shown = [evidence(history, "abs_max", "zero in all steps")]
        return self.finding(view, nodes[0], level, summary, shown, step=view.began, nodes=nodes[1:])


def _has_sibling(view: View, parameter: Parameter) -> bool:
    """Whether another one of a list of modules has its turn: a head for another task, say."""
    container, _, name = parameter.module.rpartition(".")
    known = view.modules.get(container)
    if known is None or known.module_class not in ("ModuleList", "ModuleDict"):
        return False
    others = [path for path in view.modules if path.rpartition(".")[0] == container and path != parameter.module]
    own = parameter.node.removeprefix(f"{container}.{name}")
    here = set(view.all_flow.of_node(parameter.module))
    behind = view.all_flow.downstream([place for path in others for place in view.all_flow.of_node(path)])
    is_beside = bool(here) and here.isdisjoint(behind)  # and not one of several layers in a row
    return is_beside and any(has_gradient(view, f"{path}{own}") for path in others)


def _differs(view: View, module: str) -> bool:
    """Whether a module gives samples different values: then not all that goes into it is zero."""
    history = view.history(module)
    return bool(largest(history.over_batch("mean", "batch_std")) > 1e-5 * largest(history.of("abs_max")))


def _fed_zeros(weight: Parameter, parameters: list[Parameter], zero: list[Parameter]) -> bool:
    """Whether the bias of the weight's layer gets a gradient, and the weight does not."""
    own = [other for other in parameters if other.module == weight.module and other != weight]
    return len(weight.shape) > 1 and bool(own) and all(len(other.shape) == 1 and other not in zero for other in own)


def _cancel(group: list[Parameter], zero: list[Parameter]) -> bool:
    """Whether these are but biases, of layers that learn."""
    modules = {parameter.module for parameter in zero if len(parameter.shape) > 1}
    return all(parameter.node.endswith("bias") and parameter.module not in modules for parameter in group)
