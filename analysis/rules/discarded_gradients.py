"""The rule ``discarded-gradients``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.bias_sums import Sums, sums_of_calls
from stepscope.analysis.finding import Finding
from stepscope.analysis.lines import line_of_step
from stepscope.analysis.optimizers import settings
from stepscope.analysis.parameters import learning
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store.records import BACKWARD

_HALF = 0.5


@dataclass(frozen=True)
class DiscardedGradients(Rule):
    """Of several small batches that make one step, the optimizer sees the last one only; or too many of them.

    Symptom: accumulation over small batches is as noisy as one of them; a run with L-BFGS explodes.

    How it is measured: a bias is added to every sample, so its gradient, summed over its elements, is the sum of the
    gradients of its layer's output over all calls. Where a step has at least three calls with gradients, each with
    another one, and in (almost) all steps the gradient is exactly that of the last call, the rest was set to zero. Of
    L-BFGS, which calls a closure several times a step, the gradient has to be that of the last call, or calls; where it
    is no sum of the last so many calls of the step, it was carried on from the steps before.

    Causes: ``zero_grad()`` in the loop over small batches; a closure without ``zero_grad()``.

    Remedy: clear the gradients once a step of the optimizer; in a closure, first of all.

    Attributes:
        share: of the steps. Source: the last small batch may be alone in an epoch.
        least, calls: steps, and calls of a step, below which nothing is said. Source: of ours; some methods compute
            two gradients, and use the second.
        exact: the tolerance of sums in a closure. Source: float32 rounding, with room.
    """

    name = "discarded-gradients"
    about = "gradients"
    causes = "zero_grad() is called before each of the small batches that make up one step."
    remedy = "Call zero_grad() once before the first small batch, and step() once after the last."
    share: float = 0.95
    least: int = 5
    calls: int = 3
    exact: float = 2e-4

    def check(self, view: View) -> Iterable[Finding]:
        has_closure = any("max_iter" in group for group in settings(view))
        found = {bias: sums for bias, sums in sums_of_calls(view).items() if len(sums) >= self.least}
        if has_closure:
            carried = [bias for bias, sums in found.items() if self._is_carried(sums)]
            if carried and 2 * len(carried) > sum(self._is_telling(sums[1:]) for sums in found.values()):
                yield self._of_closure(view, carried[0])
            return
        lost = [bias for bias, sums in found.items() if self._is_last_alone(sums)]
        if lost and 2 * len(lost) > sum(self._is_telling(sums) for sums in found.values()):
            yield self._finding(view, lost[0], len(found[lost[0]][0].calls))

    def _is_telling(self, steps: list[Sums]) -> bool:
        return sum(sums.is_telling for sums in steps) >= self.least - 1

    def _is_last_alone(self, steps: list[Sums]) -> bool:
        telling = [sums for sums in steps if sums.is_telling and len(sums.calls) >= self.calls]
        alone = [sums.is_last(1) and not sums.is_last(len(sums.calls)) for sums in telling]
        return len(telling) >= self.least and float(np.mean(alone)) >= self.share

    def _is_carried(self, steps: list[Sums]) -> bool:
        """Whether the gradient is never, for any number, that of so many last calls of the step.

        What was carried on may be small, where gradients grow.
        """
        later = [sums for sums in steps[1:] if sums.is_telling]
        most = max((len(sums.calls) for sums in later), default=0)
        as_many = [np.mean([sums.is_last(count, self.exact) for sums in later]) for count in range(1, most + 1)]
        return len(later) >= self.least - 1 and bool(max(as_many) < _HALF)

    def _finding(self, view: View, bias: str, calls: int) -> Finding:
        summary = (
            f"Of {calls} backward calls of a step, the optimizer uses the gradient of the last one only: the others "
            f"are cleared (zero_grad within the accumulation) before it steps."
        )
        return self._at(view, bias, summary, "", "")

    def _of_closure(self, view: View, bias: str) -> Finding:
        summary = (
            f"The closure of L-BFGS does not clear the gradients (zero_grad is missing in it): that of {bias} is not "
            f"what the calls of the step gave, all earlier ones add up in it."
        )
        return self._at(
            view,
            bias,
            summary,
            "The closure lacks its zero_grad().",
            "Call optimizer.zero_grad() first in the closure.",
        )

    def _at(self, view: View, bias: str, summary: str, causes: str, remedy: str) -> Finding:
        shown = [evidence(view.history(bias, "gradient"), "norm", "the gradient that is used")]
        return self.finding(
            view, bias, "error", summary, shown, step=view.began, confidence=0.95, causes=causes,
            remedy=remedy, nodes=[node for node in learning(view) if node != bias],
            source=line_of_step(view, BACKWARD),
        )  # fmt: skip
