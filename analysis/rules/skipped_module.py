"""The rule ``skipped-module``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.bypasses import bypasses
from stepscope.analysis.finding import Finding
from stepscope.analysis.parameters import listed
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class SkippedModule(Rule):
    """A layer that everything goes through in training, and that is left out where the net is evaluated.

    Symptom: the loss of the validation is far above that of the training, from the start; single samples, or another
    size of batch, give other answers.

    How it is measured: a module with weights or statistics is there in every training step, and in none of a kind that
    only evaluates; and what stood on both sides of it now stands side by side: in these steps the one is computed from
    the other, which it never was in training. So heads that are asked for in training only are no such layers, nor are
    shortcuts, which are there in training, too.

    Causes: a condition in ``forward``: on ``self.training``, on the size of the batch, on an argument that the
    evaluation leaves out.

    Remedy: let the same layers work in both; what differs between them is told by ``train()`` and ``eval()``.

    Attributes:
        least: recorded training steps before which nothing is said. Source: of ours.
    """

    name = "skipped-module"
    causes = "A condition in forward(): on self.training, on the size of the batch, or on an argument."
    remedy = "Let the same layers work in both; dropout and normalisations are switched by train() and eval()."
    least: int = 10

    def check(self, view: View) -> Iterable[Finding]:
        found = list(bypasses(view, self.least))
        for kind in dict.fromkeys(bypass.kind for bypass in found):
            first, *others = (bypass for bypass in found if bypass.kind == kind)
            more = f"; so are {listed(bypass.module for bypass in others)}" if others else ""
            summary = (
                f"{first.module} is skipped in all {len(first.steps)} steps of kind {kind!r}: {first.after} is "
                f"computed straight from {first.before} there, while in training all of it goes through "
                f"{first.module}{more}."
            )
            shown = [evidence(view.history(first.module), "std", "in training; it is not called in evaluation")]
            nodes = [first.after, first.before, *(bypass.module for bypass in others)]
            yield self.finding(
                view, first.module, "warning", summary, shown, step=first.steps[0], confidence=0.85,
                nodes=list(dict.fromkeys(nodes)),
            )  # fmt: skip
