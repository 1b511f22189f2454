"""The rule ``ignored-freezing``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.optimizers import held_by
from stepscope.analysis.parameters import Parameter, is_inside, listed, trainable
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class IgnoredFreezing(Rule):
    """Something was to be frozen by an attribute that torch does not know, and learns like all the rest.

    Symptom: a pretrained part changes from the first step on; few samples are learned by heart.

    How it is measured: ``requires_grad``, ``require_grad``, ``trainable`` and their like, set to False on a module (or
    a misspelt one on a parameter), while parameters in it require a gradient. Torch takes any name for an attribute:
    of these it reads ``requires_grad`` of a tensor only.

    Causes: ``model.body.requires_grad = False`` in place of ``model.body.requires_grad_(False)``; the ``trainable`` of
    Keras; a misspelt name.

    Remedy: ``module.requires_grad_(False)``, or ``parameter.requires_grad = False`` for each parameter; print how many
    are left to learn.

    Source: no threshold. PyTorch's documentation of ``nn.Module.requires_grad_``; the Keras FAQ on freezing layers.
    """

    name = "ignored-freezing"
    about = "optimizer"
    causes = "module.requires_grad = False in place of module.requires_grad_(False), or a misspelt name."
    remedy = "Call module.requires_grad_(False), and print how many parameters are left to learn."

    def check(self, view: View) -> Iterable[Finding]:
        held = {node for node, optimizers in held_by(view).items() if optimizers}
        learning = [one for one in trainable(view) if one.node in held or not held]
        for module in view.trial.network:
            for attribute in module.ignored:
                concerned = [one.node for one in learning if _belongs(one, module.path, attribute)]
                if concerned:
                    yield self._of(view, f"{module.path}.{attribute}", module.path, concerned)

    def _of(self, view: View, attribute: str, module: str, concerned: list[str]) -> Finding:
        summary = (
            f"{attribute} = False has not frozen anything: torch does not know that attribute, and {len(concerned)} "
            f"parameters ({listed(concerned)}) require a gradient still."
        )
        shown = [evidence(view.history(concerned[0], "update"), "norm", "how far it is moved")]
        step = view.steps[0].number if view.steps else 0
        return self.finding(
            view, module, "warning", summary, shown, step=step, nodes=concerned, confidence=0.95
        )  # fmt: skip


def _belongs(parameter: Parameter, module: str, attribute: str) -> bool:
    """Whether an attribute of a module, or of one of its own parameters, was to freeze this one."""
    own, _, _ = attribute.rpartition(".")
    return parameter.node == f"{module}.{own}" if own else is_inside(parameter.module, module)
