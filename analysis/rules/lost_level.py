"""The rule ``lost-level``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.curves import fallen
from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.loss_inputs import comparisons
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_LEAST = 30
"""Steps from the first to the last before which nothing is said."""
_SAME = 1e-3
"""How far the means, or the deviations, of standardised samples differ: by rounding, and by an epsilon."""
_VARIES = 0.2


@dataclass(frozen=True)
class LostLevel(Rule):
    """Each sample was standardised by itself before it came in, and its target was not: nothing tells its level.

    Symptom: a regression, or a forecast, stays far from its targets, whatever the net.

    How it is measured: in all steps the samples of an input have one and the same mean and one and the same standard
    deviation, each by itself; the numbers of the target vary from sample to sample; and less than ``fall`` of the
    first loss is gone at the end.

    Causes: windows of a series, or pictures, that are each brought to mean 0 and deviation 1, with targets left in the
    units of the data.

    Remedy: standardise the target by the mean and deviation of its own window, and undo it with the prediction; or
    standardise all windows by the statistics of the whole training set.

    Attributes:
        fall: the part of the first loss that should be gone. Source: of ours; half of it, as elsewhere for what learns.
    """

    name = "lost-level"
    causes = "Each sample is standardised by its own mean and deviation, and its target is left as it was."
    remedy = "Standardise the target by the same numbers, or all samples by those of the whole training set."
    fall: float = 0.5

    def check(self, view: View) -> Iterable[Finding]:
        numbers = [step.number for step in view.training]
        compared = [c for c in comparisons(view) if c.target is not None and "float" in c.target_dtype]
        if not compared or numbers[-1] - numbers[0] < _LEAST or (part := fallen(view)) >= self.fall:
            return
        target = compared[0].target
        inputs = view.flow.of_type("input")
        if target is None or target in inputs or not _varies(view, target):
            return
        for place in inputs:
            if _is_standardised(view, place):
                history = view.history(place.node, role=place.role)
                summary = (
                    f"Each sample of {place.node} was standardised by itself, to the same mean and deviation as all "
                    f"others, and {target.node} was not: nothing that comes in tells a sample's level or size. The "
                    f"loss fell by {max(part, 0.0):.0%}."
                )
                yield self.finding(
                    view, place.node, "warning", summary, [evidence(history, "std", "the same for all samples")],
                    step=view.began, nodes=[target.node], confidence=0.7,
                )  # fmt: skip


def _is_standardised(view: View, place: Place) -> bool:
    """Whether all samples of all steps have one mean, and one deviation that is near 1."""
    history = view.history(place.node, role=place.role)
    means, sizes = history.over_batch("mean", "batch_std"), history.over_batch("std", "batch_std")
    size = history.over_batch("std", "batch_mean")
    if not len(size) or not np.isfinite([means, sizes, size]).all():
        return False
    return bool((means < _SAME).all() and (sizes < _SAME).all() and (size > 0.5).all() and (size < 2).all())


def _varies(view: View, target: Place) -> bool:
    """Whether the levels of the targets differ by a good part of what the targets are."""
    history = view.history(target.node, role=target.role)
    spread, whole = history.over_batch("mean", "batch_std"), history.of("std")
    return bool(len(spread)) and bool((spread > _VARIES * whole).all() and (whole > 0).all())
