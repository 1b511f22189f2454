"""The rule ``short-training``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.curves import Curve, loss_curves
from stepscope.analysis.finding import Finding
from stepscope.analysis.moving import has_moving_targets, is_of_policy
from stepscope.analysis.rule import Rule
from stepscope.analysis.straight import straightness
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class ShortTraining(Rule):
    """The training ended while the loss was still falling.

    Symptom: the net is worse than it could be; nothing else is wrong.

    How it is measured: once a trial has ended, the median loss of its last quarter against that of the quarter before.
    It is worth knowing where the difference is a good part of what is left, many times its standard error, and most of
    the first loss is still there. With several losses, or a policy's, none is judged. If, besides, the weights got
    nearly as far as all their steps add up to, each step going on where the last one went, the steps are small: half
    the standard errors are enough, then, and the learning rate is told.

    Causes: too few epochs or steps, an early stopping without patience, a schedule that ends too soon.

    Remedy: train longer; or look whether a higher learning rate gets there sooner.

    Attributes:
        points: fewer recorded losses are not judged. Source: of ours; quarters of two.
        steps: of a training of fewer steps it is said that they are few. Source: of ours.
        fall: how much must have gone in the last quarter, as a part of what is left. Source: of ours.
        errors: the standard errors (noise over the root of the points) that the fall must exceed, unless the loss fell
            in every step. Source: of ours.
        left: the part of the first loss that must be left.
        straight: how far the weights must have got, as a part of what their steps add up to. Source: of ours; of
            78 sound twins in ``examples/broken`` half have less than 0.44, nine of ten less than 0.66, three more.
    """

    name = "short-training"
    causes = "Too few epochs or steps, an early stopping without patience, or a schedule that ends too soon."
    remedy = "Train longer; or look whether a higher learning rate gets there sooner."
    points: int = 8
    steps: int = 50
    fall: float = 0.08
    errors: float = 4.0
    left: float = 0.3
    straight: float = 0.75

    def check(self, view: View) -> Iterable[Finding]:
        if view.trial.state != "finished" or view.broken or len(view.objectives) != 1:
            return
        curves = [curve for curve in loss_curves(view) if len(curve) >= self.points]
        if len(curves) == 1 and not is_of_policy(view) and not has_moving_targets(view):
            yield from self._of(view, curves[0])

    def _of(self, view: View, curve: Curve) -> Iterable[Finding]:
        quarter = len(curve) // 4
        before, last = (float(np.median(part)) for part in (curve.values[-2 * quarter : -quarter],
                                                            curve.values[-quarter:]))  # fmt: skip
        fallen, error = before - last, curve.noise / math.sqrt(quarter)
        way = straightness(view)
        errors = self.errors / 2 if way > self.straight else self.errors
        is_clear = bool(np.all(np.diff(curve.values) < 0)) or fallen > errors * error
        if last > self.left * curve.start and fallen > self.fall * last and is_clear:
            summary = (
                f"The training ended at step {curve.steps[-1]} while {curve.place.node} was still falling: from "
                f"{before:.3g} to {last:.3g} over the last quarter of the steps. It would profit from more epochs."
            )
            if way > self.straight:
                summary += (
                    f" The weights got {min(way, 1):.0%} of the way that their steps add up to, always on in one "
                    f"direction: so the learning rate is low, or the training short."
                )
            updates = view.training[-1].number - view.began + 1
            if updates < self.steps:
                summary += f" It had {updates} steps only: so few updates may come of too large a batch size."
            shown = [evidence(curve.history, "mean", "still falling at the end")]
            step = int(curve.steps[-quarter])
            yield self.finding(view, curve.place.node, "info", summary, shown, step=step, confidence=0.5)
