"""The rule ``ignored-freezing``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.optimizers import held_by
from stepscope.analysis.parameters import Parameter, in_sentence, is_inside, trainable
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_TRAIN = ".train()"


@dataclass(frozen=True)
class IgnoredFreezing(Rule):
    """Something was to be frozen by an attribute that torch does not know, and learns like all the rest.

    Symptom: a pretrained part changes from the first step on; few samples are learned by heart.

    How it is measured: ``requires_grad``, ``require_grad``, ``trainable`` and their like, set to False on a module (or
    a misspelt one on a parameter), while parameters in it require a gradient. Torch takes any name for an attribute:
    of these it reads ``requires_grad`` of a tensor only. Besides, what ``train()`` of the model would freeze, where a
    class overrides it: it is tried on a copy without tensors.

    Causes: ``model.body.requires_grad = False`` in place of ``model.body.requires_grad_(False)``; the ``trainable`` of
    Keras; a misspelt name; a model that freezes its first stages in ``train()``, which nobody calls.

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
        yield from self._thawed(view, {one.node for one in learning})
        for module in view.trial.network:
            for attribute in module.ignored:
                if attribute.endswith(_TRAIN):
                    continue
                concerned = [one.node for one in learning if _belongs(one, module.path, attribute)]
                if concerned:
                    yield self._of(view, f"{module.path}.{attribute}", module.path, concerned)

    def _thawed(self, view: View, learning: set[str]) -> Iterable[Finding]:
        """Parameters that a ``train()`` of the model's own freezes, which nobody called."""
        marked = [
            f"{module.path}.{attribute.removesuffix(_TRAIN)}"
            for module in view.trial.network
            for attribute in module.ignored
            if attribute.endswith(_TRAIN)
        ]
        concerned = [node for node in marked if node in learning]
        if concerned:
            summary = (
                f"The model's own train() freezes {in_sentence(concerned)}, but it has not "
                f"been called: they are not frozen. A new module is in the mode of training from the start."
            )
            shown = [evidence(view.history(concerned[0], "update"), "norm", "how far it is moved")]
            yield self.finding(
                view, _around(view, concerned), "warning", summary, shown, step=view.began, nodes=concerned,
                confidence=0.85, causes="A model that freezes its stages in train(), and a loop without model.train().",
                remedy="Call model.train() before the training and after each evaluation.",
            )  # fmt: skip

    def _of(self, view: View, attribute: str, module: str, concerned: list[str]) -> Finding:
        summary = (
            f"{attribute} = False has not frozen anything: torch does not know that attribute, and nothing keeps "
            f"{in_sentence(concerned)} from being trained."
        )
        shown = [evidence(view.history(concerned[0], "update"), "norm", "how far it is moved")]
        step = view.steps[0].number if view.steps else 0
        return self.finding(
            view, module, "warning", summary, shown, step=step, nodes=concerned, confidence=0.95
        )  # fmt: skip


def _around(view: View, nodes: list[str]) -> str:
    """The outermost module around the first of some parameters that holds no others than these."""
    path = nodes[0].rpartition(".")[0]
    while (above := path.rpartition(".")[0]) and all(
        one.node in nodes for one in trainable(view) if is_inside(one.module, above)
    ):
        path = above
    return path


def _belongs(parameter: Parameter, module: str, attribute: str) -> bool:
    """Whether an attribute of a module, or of one of its own parameters, was to freeze this one."""
    own, _, _ = attribute.rpartition(".")
    return parameter.node == f"{module}.{own}" if own else is_inside(parameter.module, module)
