"""The rule ``early-clipping``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.lines import line_of_step
from stepscope.analysis.parameters import learning
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class EarlyClipping(Rule):
    """Gradients are clipped before ``backward()``, when there are none: nothing is clipped.

    Symptom: training is as unstable as without clipping; single wild batches throw the net out.

    How it is measured: torch's clipping functions look for gradients in a step before its first ``backward``, and find
    none; none of them writes to gradients later in the step. In (almost) all training steps.

    Causes: ``clip_grad_norm_`` was put between ``zero_grad()`` and ``backward()``.

    Remedy: ``loss.backward()``, then ``clip_grad_norm_(...)``, then ``optimizer.step()``.

    Attributes:
        share: of the training steps. Source: of ours; where a step ends with ``backward`` and begins with clipping,
            there is nothing to clip in the first one alone.
    """

    name = "early-clipping"
    about = "gradients"
    causes = "clip_grad_norm_ stands between zero_grad() and backward(), when there are no gradients."
    remedy = "Call backward() first, then clip_grad_norm_, then the optimizer's step()."
    share: float = 0.9

    def check(self, view: View) -> Iterable[Finding]:
        early = [step for step in view.training if step.facts.get("clipped_early")]
        if len(early) < 3 or len(early) < self.share * len(view.training):
            return
        if any(
            "clip" in site.operation for site in view.flow.sites if site.kind == "step" and site.operation != _EARLY
        ):
            return
        nodes = learning(view)
        summary = (
            f"Gradients are clipped before backward() in {len(early)} of {len(view.training)} training steps, when "
            f"there are none yet: nothing is clipped."
        )
        first = nodes[0] if nodes else ""
        shown = [evidence(view.history(first, "gradient"), "norm", "as backward() left it")] if nodes else []
        yield self.finding(
            view, first, "warning", summary, shown, step=early[0].number, nodes=nodes[1:], confidence=0.95,
            source=line_of_step(view, _EARLY),
        )  # fmt: skip


_EARLY = "clipping before backward"
