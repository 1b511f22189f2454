"""The rule ``positive-weights``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.parameters import listed, trainable
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_LEAST = 4


@dataclass(frozen=True)
class PositiveWeights(Rule):
    """A matrix of weights that begins with numbers between 0 and 1, all of them positive: ``torch.rand``.

    Symptom: values grow with the width of the layer; the first loss is far from what it should be.

    How it is measured: in the first step a trained parameter of at least two dimensions has the mean and the standard
    deviation of a uniform distribution from 0 to 1, and all its numbers lie there. It has negative ones later: what is
    kept positive, as in a factorisation, is meant so. Worth knowing only: not every table is multiplied with.

    Causes: ``nn.Parameter(torch.rand(...))`` where small numbers around zero were meant.

    Remedy: ``torch.randn(...) / fan_in**0.5``, or an initialisation of ``nn.init``.

    Attributes:
        tolerance: of the mean and the standard deviation. Source: three standard errors of a hundred numbers.
    """

    name = "positive-weights"
    causes = "nn.Parameter(torch.rand(...)) where small numbers around zero were meant."
    remedy = "torch.randn(...) / fan_in**0.5, or an initialisation of nn.init."
    tolerance: float = 0.08

    def check(self, view: View) -> Iterable[Finding]:
        if not view.training or view.began > 0:
            return
        every = [p.node for p in trainable(view) if len(p.shape) > 1 and min(p.shape[:2]) >= _LEAST]
        found = [node for node in every if self._is_uniform(view, node)]
        if found:
            history = view.history(found[0])
            summary = (
                f"{listed(found)} begins with numbers between 0 and 1, all positive (torch.rand?): what is "
                f"multiplied with such weights adds up with the width."
            )
            yield self.finding(
                view, found[0], "info", summary, [evidence(history, "min", "no negative number at first")],
                step=view.began, nodes=found[1:], confidence=0.6,
            )  # fmt: skip

    def _is_uniform(self, view: View, node: str) -> bool:
        history = view.history(node)
        lowest, highest, mean, std = (history.of(name) for name in ("min", "max", "mean", "std"))
        if len(history) < 3 or not (0 <= lowest[0] < self.tolerance and 1 - self.tolerance < highest[0] <= 1):
            return False
        near = abs(mean[0] - 0.5) < self.tolerance and abs(std[0] - np.sqrt(1 / 12)) < self.tolerance / 2
        return bool(near and lowest.min() < 0)
