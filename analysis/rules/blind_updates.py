"""The rule ``blind-updates``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.parameters import gradients, listed, trainable
from stepscope.analysis.robust import median
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class BlindUpdates(Rule):
    """All numbers of a parameter are changed by the same amount, whatever their gradients are.

    Symptom: biases run away, all in one direction, and the loss with them; or it falls in spite of them.

    How it is measured: in every recorded step the largest and the smallest change of a parameter of several numbers are
    the same, but for rounding, while some of its gradients are positive and others negative. No optimizer does that:
    what each number is moved by depends on its own gradient, or at least on its sign.

    Causes: an update by hand that subtracts the rate without the gradient (``b -= lr``), or its sum over all numbers.

    Remedy: subtract the learning rate times the gradient: ``p -= lr * p.grad``; or use an optimizer of torch.

    Source: Goodfellow, Bengio and Courville, *Deep Learning* (2016), section 11.5, have such a bug for an example.

    Attributes:
        steps: recorded steps below which nothing is said. Source: of ours.
        alike, digits: the difference of two changes, as a part of them, that is no more than rounding; and as a part of
            the largest number of the parameter, since changes are differences of such numbers. Source: float32 has
            seven digits.
        share: of the steps in which the gradients must have both signs. Source: of ours.
    """

    name = "blind-updates"
    about = "optimizer"
    causes = "An update by hand that subtracts the rate without the gradient, or its sum over all numbers."
    remedy = "Subtract the learning rate times the gradient of each number; or use an optimizer of torch."
    steps: int = 5
    alike: float = 1e-3
    digits: float = 1e-6
    share: float = 0.5

    def check(self, view: View) -> Iterable[Finding]:
        blind = [parameter.node for parameter in trainable(view) if self._is_blind(view, parameter.node)]
        if blind:
            updates = view.history(blind[0], "update")
            summary = (
                f"All numbers of {listed(blind)} change by the same amount in a step "
                f"({median(updates.of('mean')):.3g} in the median), whatever the gradient of each is: their updates do "
                f"not follow their gradients."
            )
            shown = [evidence(updates, "min", "the smallest change"), evidence(updates, "max", "the largest")]
            yield self.finding(
                view, blind[0], "error", summary, shown, step=int(updates.steps[0]), nodes=blind[1:], confidence=0.9
            )

    def _is_blind(self, view: View, node: str) -> bool:
        updates, found = view.history(node, "update"), gradients(view, node)
        if len(updates) < self.steps or len(found) != 1 or len(found[0]) < self.steps:
            return False
        low, high, size = updates.of("min"), updates.of("max"), updates.of("abs_max")
        largest = float(np.max(view.history(node).of("abs_max"), initial=0.0))
        if not np.all(np.isfinite(size)) or not np.all(size > 10 * self.digits * largest):
            return False
        is_alike = bool(np.all(high - low <= self.alike * size + self.digits * largest))
        both = (found[0].of("min") < 0) & (found[0].of("max") > 0)
        return is_alike and float(np.mean(both)) > self.share
