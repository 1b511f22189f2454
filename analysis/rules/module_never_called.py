"""The rule ``module-never-called``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.parameters import Parameter, gather, has_gradient, in_sentence, trainable
from stepscope.analysis.robust import largest
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class ModuleNeverCalled(Rule):
    """A module with trainable parameters that takes no part in any recorded step.

    Symptom: its weights never change; data-parallel training complains about unused parameters.

    How it is measured: no recorded step, of whatever kind, has an output of the module, and none of its parameters
    is used by anything or gets a gradient (a module whose weights are used directly, as attention does, is in use).
    What changes all the same, without any update, is written to: an average of the weights, to be asked later.

    Causes: a typing mistake in ``forward`` (``self.fc1`` called twice), a layer that was replaced and left behind, a
    branch that is never taken.

    Remedy: call it, or delete it.

    Source: no threshold.
    """

    name = "module-never-called"
    causes = "A slip in forward() (another layer called twice), a layer that was replaced but left, or a dead branch."
    remedy = "Call the module in forward(), or delete it."

    def check(self, view: View) -> Iterable[Finding]:
        if not view.training:
            return
        unused = [parameter for parameter in trainable(view) if is_unused(view, parameter)]
        for module, parameters in gather(view, unused).items():
            yield self._finding(view, module, parameters)

    def _finding(self, view: View, module: str, parameters: list[Parameter]) -> Finding:
        nodes = [parameter.node for parameter in parameters]
        kind = view.modules[module].module_class if module in view.modules else "module"
        summary = (
            f"{module} ({kind}) is never called in {len(view.trial.steps)} recorded steps, so that "
            f"{in_sentence(nodes)} cannot learn."
        )
        shown = [evidence(view.history(nodes[0]), "norm", "stays as it was initialised")]
        return self.finding(view, nodes[0], "warning", summary, shown, step=view.began, nodes=nodes[1:])


def is_unused(view: View, parameter: Parameter) -> bool:
    """Whether neither the module's output nor the parameter itself is used in any step that is looked at."""
    prefix = parameter.module + "."
    if parameter.module in view.nodes or has_gradient(view, parameter.node) or _moves(view, parameter):
        return False
    if any(name.startswith(prefix) and view.nodes[name].type == "calculated" for name in view.nodes):
        return False
    return not any(view.all_flow.sinks.get(place) for place in view.all_flow.of_node(parameter.node))


def _moves(view: View, parameter: Parameter) -> bool:
    """Whether it changes nevertheless: it is used in a way that the recorder cannot see, through a function of it.

    Or it follows others, as an average does.
    """
    update = view.history(parameter.node, "update")
    if len(update) and largest(update.of("abs_max")) > 0:
        return True
    return bool(view.history(parameter.node).is_changed.any())
