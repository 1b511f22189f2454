"""The rule ``small-batch-norm``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class SmallBatchNorm(Rule):
    """Batch normalisation over so few values that its mean and variance are mostly noise.

    Symptom: a noisy loss; much worse results in evaluation mode, which uses running statistics, than in training.

    How it is measured: how many values a channel's statistics are taken over in a training step: the batch times the
    length or area, in the median of the training steps.

    Causes: a batch that had to be small to fit into memory, gradient accumulation with micro-batches of 1 or 2.

    Remedy: GroupNorm or LayerNorm, synchronised BatchNorm over devices, or larger batches.

    Attributes:
        values: fewer than these a channel. Source: Wu and He (2018), "Group Normalization": the error of BatchNorm
            grows from 8 samples down; with area, even 2 images give hundreds of values.
    """

    name = "small-batch-norm"
    causes = "A batch that had to be small to fit into memory, or micro-batches of one or two samples."
    remedy = "Use GroupNorm or LayerNorm, synchronise BatchNorm over devices, or make the batch larger."
    values: int = 8

    def check(self, view: View) -> Iterable[Finding]:
        steps = view.training[:: max(1, len(view.training) // 20)]
        for path, module in view.modules.items():
            if not module.module_class.startswith("BatchNorm") or path not in view.nodes:
                continue
            shapes = [step.find(path).shape for step in steps if step.layout.row(path, "value", None, None) is not None]
            counts = [math.prod(shape) // max(shape[1], 1) for shape in shapes if len(shape) > 1]
            if counts and np.median(counts) < self.values:
                yield self._finding(view, path, int(np.median(counts)))

    def _finding(self, view: View, path: str, count: int) -> Finding:
        summary = f"{path} normalises over {count} values a channel, too few for a mean and a variance."
        shown = [evidence(view.history(path), "std", "its outputs")]
        return self.finding(view, path, "warning", summary, shown, step=view.began, confidence=0.8)
