"""The rule ``single-class``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.loss_inputs import comparisons
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class SingleClass(Rule):
    """A cross-entropy over one class only: it is zero whatever the net says.

    Symptom: the loss is 0 from the first step on; no gradient flows.

    How it is measured: the prediction that goes into cross_entropy or nll_loss has a size of one in the dimension of
    the classes.

    Causes: a binary problem with one output and the loss for several classes.

    Remedy: binary_cross_entropy_with_logits for one output, or two outputs for cross_entropy.

    Source: no threshold.
    """

    name = "single-class"
    about = "loss"
    causes = "A yes-or-no problem with one output and the loss for several classes."
    remedy = "Use binary_cross_entropy_with_logits for one output, or give the net two outputs."

    def check(self, view: View) -> Iterable[Finding]:
        seen: set[str] = set()
        for comparison in comparisons(view):
            is_one = len(comparison.shape) > 1 and comparison.shape[1] == 1
            name = comparison.prediction.node
            if comparison.operation in ("cross_entropy", "nll_loss") and is_one and name not in seen:
                seen.add(name)
                loss = view.history(comparison.loss.node, role=comparison.loss.role)
                summary = f"{comparison.loss.node} compares {name} {comparison.shape} over a single class."
                yield self.finding(
                    view, name, "error", summary, [evidence(loss, "mean", "always zero")],
                    step=view.training[0].number, nodes=[comparison.loss.node], confidence=0.97,
                )  # fmt: skip
