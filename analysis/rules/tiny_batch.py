"""The rule ``tiny-batch``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.batch_size import inputs_with_batch, samples_of
from stepscope.analysis.curves import fallen, loss_curves
from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.loss_inputs import comparisons
from stepscope.analysis.moving import is_computed
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class TinyBatch(Rule):
    """A step sees so few samples that the loss is mostly noise, and it hardly falls.

    Symptom: the loss goes up and down from step to step by as much as it should fall.

    How it is measured: the batch dimension of the inputs in the median of the training steps, and how much the loss
    differs from one recorded step to the next, against its size. It is worth knowing only where the loss has not
    fallen well, or is wild, or has both signs: some methods need single samples. Single samples whose targets a step
    computes itself, as an agent's, are always worth knowing.

    Causes: a batch made small to fit into memory, with the learning rate of a large one; a wrong argument of a loader.

    Remedy: make the batch larger, add up the gradients of several, or lower the learning rate by as much.

    Attributes:
        samples: at most so many. Source: of ours; the noise of a mean goes with the root of their number.
        noise, wild: the usual difference between two steps as a part of the loss; beyond ``wild`` it counts although
            the loss has fallen.
        single: the same of single samples, where the loss has not fallen well. Source: of ours; of a cross-entropy over
            dozens of classes, most of the loss is the same for all samples.
        least, fall, learned: the part of the first loss that is gone: less than ``least`` needs no noise, less than
            ``fall`` some; more than ``learned`` is fine.
    """

    name = "tiny-batch"
    causes = "A batch made small to fit into memory, with the learning rate of a large one; an argument of a loader."
    remedy = "Make the batch larger, add up the gradients of several, or lower the learning rate by as much."
    samples: int = 3
    noise: float = 0.3
    wild: float = 0.75
    single: float = 0.05
    least: float = 0.1
    fall: float = 0.5
    learned: float = 0.9

    def check(self, view: View) -> Iterable[Finding]:
        curves = list(loss_curves(view))
        sizes = {node: samples_of(view, node) for node in inputs_with_batch(view)}
        part = fallen(view)
        if curves and np.isfinite(part) and np.any(curves[0].values < 0) and np.any(curves[0].values > 0):
            part = 0.0  # of a loss that crosses zero, as that of a policy's gradient, no part tells anything
        if view.is_young or not curves or not sizes:
            return
        size = max(sizes.values())
        if size == 1 and (targets := [c.target for c in comparisons(view) if c.target and is_computed(view, c.target)]):
            yield self._from_one_sample(view, targets[0])
            return
        if part >= self.learned:
            return
        losses = curves[0].history.of("mean")
        late = losses[len(losses) // 2 :]
        if not 0 < size <= self.samples or len(late) < 10 or not np.all(np.isfinite(late)):
            return
        noise = float(np.median(np.abs(np.diff(late))) / max(np.median(np.abs(late)), 1e-30))
        loud = self.noise if part < self.fall else self.wild
        if size == 1 and part < self.fall:
            loud = self.single
        is_odd = part < self.least or noise > loud
        if is_odd and len(view.training[-1].iterations) == 1:
            summary = f"A batch has {size} samples: the loss differs by {noise:.0%} from one recorded step to the next."
            yield self.finding(
                view, max(sizes, key=lambda node: sizes[node]), "info", summary,
                [evidence(curves[0].history, "mean", "the loss")], step=view.began, confidence=0.5,
            )  # fmt: skip

    def _from_one_sample(self, view: View, target: Place) -> Finding:
        summary = (
            f"Each step learns from a single sample, whose target ({target.node}) is computed in the step: if it is "
            f"an agent's latest move, the samples are correlated, and what was learned before is overwritten."
        )
        history = view.history(target.node, role=target.role)
        return self.finding(
            view, inputs_with_batch(view)[0], "info", summary, [evidence(history, "mean", "the target")],
            step=view.began, nodes=[target.node], confidence=0.6,
            causes="Learning from the latest move alone, without a replay memory.",
            remedy="Keep what was seen in a replay memory, and learn from batches drawn from it.",
        )  # fmt: skip
