"""The rule ``sum-before-logarithm``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.lines import sites_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class SumBeforeLogarithm(Rule):
    """A whole batch is summed up before the logarithm of a sigmoid, where each sample's logarithm was to be summed.

    Symptom: the loss is huge or exactly 0 after a few steps, gradients vanish, and single samples hardly matter.

    How it is measured: ``logsigmoid``, ``softplus``, ``log(sigmoid())`` or ``binary_cross_entropy_with_logits`` is
    called on one number that is the sum over a table with a gradient, or over the sums of its rows. Means are left
    alone, and so is any other logarithm: that of a sum of exponentials is one on purpose.

    Causes: ``logsigmoid((u * (p - n)).sum())``, where the sum over the features of each sample, ``sum(1)``, was meant;
    brackets in the wrong place.

    Remedy: sum over the features, take the logarithm of each sample, then the mean.

    Source: no threshold.
    """

    name = "sum-before-logarithm"
    about = "loss"
    causes = "sum() without a dimension, where only that of the features was to be summed; brackets in a wrong place."
    remedy = "Take logsigmoid of each sample, sum(dim=1) before it, and the mean of all behind it."

    def check(self, view: View) -> Iterable[Finding]:
        for site in {site.source: site for site in sites_of(view, "log of sum")}.values():
            ends = sorted(site.after, key=lambda place: view.position.get(place.node, 0))
            loss = next((place for place in ends if place in view.losses), None)
            if loss is None:
                continue
            summary = (
                f"{loss.node} takes {site.operation} of one number, the sum over the whole batch, which soon saturates "
                f"it; a sum of the logarithms of all samples was meant?"
            )
            made = sorted({p.node for p in site.before}, key=lambda node: view.position.get(node, 0))
            yield self.finding(
                view, loss.node, "warning", summary,
                [evidence(view.history(loss.node, role=loss.role), "mean", "of one sum")], source=site.source,
                step=view.began, nodes=[node for node in made[::-1] if node != loss.node], confidence=0.9,
            )  # fmt: skip
