"""The rule ``uneven-means``."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.baseline import count_classes
from stepscope.analysis.finding import Finding
from stepscope.analysis.lines import sites_of
from stepscope.analysis.loss_inputs import OF_CLASSES, Comparison, comparisons
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_EQUAL = 1e-3


@dataclass(frozen=True)
class UnevenMeans(Rule):
    """A step adds up means over far more targets and over far fewer, and weighs them alike.

    Symptom: the loss falls, but what is rare, or short, is learned at the cost of the rest; results differ from those
    of one large batch.

    How it is measured: several calls of a cross-entropy in a step, which all compare the output of one module with
    targets of their own, whose numbers differ by a factor, while the gradients of the losses are the same. A target of
    the smallest one then counts as many times as much as one of the largest.

    Causes: accumulated batches of texts of different lengths, each of which gives the mean over its own tokens.

    Remedy: sum the losses (``reduction="sum"``) and divide by the number of all targets of the step.

    Source: Unsloth and Hugging Face (2024) on gradient accumulation; huggingface/transformers 24725.

    Attributes:
        times: the numbers of targets of the largest and the smallest call. Source: of ours; last batches are smaller.
    """

    name = "uneven-means"
    about = "loss"
    causes = "Accumulated batches of texts of different lengths, each of which gives the mean over its own tokens."
    remedy = 'Sum the losses (reduction="sum") and divide by the number of all targets of the step.'
    times: float = 5.0

    def check(self, view: View) -> Iterable[Finding]:
        summed = {place for site in sites_of(view, "summed") for place in site.after}
        groups: dict[tuple[str, str, int], list[Comparison]] = defaultdict(list)
        for one in comparisons(view):
            is_of_tokens = one.operation in OF_CLASSES and one.shape != one.target_shape and one.loss not in summed
            if is_of_tokens and one.target is not None:
                classes = count_classes(one.shape, one.target_shape)
                groups[one.loss.node, one.prediction.node, classes].append(one)
        for group in groups.values():
            counts = [math.prod(one.target_shape) for one in group]
            if len(group) > 1 and max(counts) > self.times * min(counts) > 0 and _weigh_alike(view, group):
                yield self._finding(view, group, counts)

    def _finding(self, view: View, group: list[Comparison], counts: list[int]) -> Finding:
        loss = group[0].loss
        summary = (
            f"{len(group)} calls of {group[0].operation} in a step give means over {min(counts)} to {max(counts)} "
            f"targets (tokens), and weigh alike: a target of the smallest counts {max(counts) / min(counts):.0f} times "
            f"as much."
        )
        shown = [evidence(view.history(one.loss.node, role=one.loss.role), "mean", "a mean") for one in group[:2]]
        return self.finding(
            view, loss.node, "info", summary, shown, step=view.began, confidence=0.7,
            nodes=list(dict.fromkeys(one.prediction.node for one in group)),
        )  # fmt: skip


def _weigh_alike(view: View, group: list[Comparison]) -> bool:
    weights = [view.history(one.loss.node, "gradient", role=one.loss.role).of("mean") for one in group]
    if any(len(weight) == 0 for weight in weights):
        return False
    usual = np.array([float(np.median(weight)) for weight in weights])
    return bool(np.ptp(usual) <= _EQUAL * np.abs(usual).max())
