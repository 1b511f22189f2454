"""The gradients of all parameters together, before and after clipping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis.history import History, Values
from stepscope.analysis.parameters import trainable
from stepscope.analysis.view import View

BEFORE_CLIPPING = "gradient before clipping"
_LEAST = 5


@dataclass(frozen=True)
class Clipping:
    """What clipping did in n training steps, to all parameters whose gradients were written to in all of them.

    Attributes:
        steps: ``(n,)``.
        before, after: ``(n,)`` the Euclidean norm over all elements.
        largest_after: ``(n,)`` the largest magnitude of an element that was left.
        largest: the parameter whose gradient is the largest, in the median of the steps.
    """

    steps: NDArray[np.int64]
    before: Values
    after: Values
    largest_after: Values
    largest: str

    @property
    def factors(self) -> Values:
        """``(n,)``: by what the norm was divided; 1 where there was nothing to divide."""
        return np.divide(self.before, self.after, out=np.ones_like(self.before), where=self.after > 0)


def clipping(view: View) -> Clipping | None:
    """What clipping did; None if no gradient was written to before its use."""
    names = [name for name, node in view.nodes.items() if BEFORE_CLIPPING in node.quantities]
    pairs = [(view.history(name, BEFORE_CLIPPING), view.history(name, "gradient")) for name in names]
    pairs = [(before, after) for before, after in pairs if len(before) and len(after)]
    if not pairs:
        return None
    steps = reduce(np.intersect1d, [history.steps for pair in pairs for history in pair])
    if not len(steps):
        return None
    before = np.stack([_at(steps, history, "norm") for history, _ in pairs])
    after = [history for _, history in pairs]
    return Clipping(
        steps,
        _total(before),
        _total([_at(steps, history, "norm") for history in after]),
        np.max([_at(steps, history, "abs_max") for history in after], axis=0),
        pairs[int(np.argmax(np.median(before, axis=1)))][0].node,
    )


def _at(steps: NDArray[np.int64], history: History, statistic: str) -> Values:
    return history.of(statistic)[np.isin(history.steps, steps)]


def _total(norms: Sequence[Values] | Values) -> Values:
    total: Values = np.sqrt(np.sum(np.square(norms), axis=0))
    return total


@dataclass(frozen=True)
class Peak:
    """The largest gradient of a run, all parameters together, and its usual size."""

    step: int
    norm: float
    usual: float


def unclipped_peak(view: View, times: float = 30.0) -> Peak | None:
    """The largest gradient, if nothing clips them and it is so many ``times`` as large as usual; else None."""
    if any(BEFORE_CLIPPING in node.quantities for node in view.nodes.values()):
        return None
    known = [view.history(parameter.node, "gradient") for parameter in trainable(view)]
    known = [history for history in known if len(history)]
    longest = max((len(history) for history in known), default=0)
    known = [history for history in known if len(history) == longest]
    if longest < _LEAST:
        return None
    norms = _total([history.of("norm") for history in known])
    norms, steps = norms[np.isfinite(norms)], known[0].steps[np.isfinite(norms)]
    if not len(norms) or not norms.max() > times * float(np.median(norms)):
        return None
    place = int(np.argmax(norms))
    return Peak(int(steps[place]), float(norms[place]), float(np.median(norms)))
