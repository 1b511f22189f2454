"""The loss of each kept sample, worked out again from what the loss function compared."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stepscope.analysis.hints.ranks import Vector
from stepscope.analysis.loss_inputs import OF_CLASSES, Comparison, comparisons
from stepscope.analysis.view import View
from stepscope.store import Step, Trial
from stepscope.store.errors import StoreError
from stepscope.store.records import Neurons


class SampleLoss:
    """Gives the losses of a step's kept samples where they can be known.

    That is so if the prediction and the target were recorded, the loss function is a common one, and all that it needs
    of a sample is among the kept neurons; for an error of element by element, evenly spaced elements are enough.
    """

    def __init__(self, trial: Trial) -> None:
        pairs = [pair for pair in comparisons(View(trial)) if pair.target is not None]
        self._pair: Comparison | None = pairs[0] if pairs else None

    def of(self, step: Step) -> Vector | None:
        """The loss of each kept sample, up to a factor; None where it cannot be known."""
        if self._pair is None or self._pair.target is None:
            return None
        try:
            prediction = step.tensor(self._pair.prediction.node, role=self._pair.prediction.role)
            target = step.tensor(self._pair.target.node, role=self._pair.target.role)
            if prediction.info.batch_dim is None or target.info.batch_dim is None:
                return None
            mine, theirs = prediction.neurons, target.neurons
        except StoreError:
            return None
        if mine is None or theirs is None or len(mine.samples) != len(theirs.samples):
            return None
        losses = formula(self._pair.operation, mine, theirs)
        return losses if losses is not None and len(losses) > 1 and np.isfinite(losses).all() else None


def formula(operation: str, prediction: Neurons, target: Neurons) -> Vector | None:
    """The loss of each sample by a loss function of ``torch.nn.functional``; None if it is not known."""
    x, y = prediction.samples.astype(np.float64), target.samples.astype(np.float64)
    if prediction.total == target.total and operation in _ELEMENTWISE:
        result: Vector = _ELEMENTWISE[operation](x, y).mean(axis=1)
        return result
    whole = prediction.total == x.shape[1] and target.total == 1
    if operation in OF_CLASSES and whole and bool(((y >= 0) & (y < x.shape[1])).all()):
        picked = np.take_along_axis(x, y.astype(np.int64), axis=1)[:, 0]
        losses: Vector = -picked + (_log_sum_exp(x) if operation == "cross_entropy" else 0.0)
        return losses
    return None


def _log_sum_exp(x: Vector) -> Vector:
    highest = x.max(axis=1)
    result: Vector = highest + np.log(np.exp(x - highest[:, None]).sum(axis=1))
    return result


def _bce(x: Vector, y: Vector) -> Vector:
    safe = np.clip(x, 1e-12, 1 - 1e-12)
    result: Vector = -(y * np.log(safe) + (1 - y) * np.log1p(-safe))
    return result


def _bce_with_logits(x: Vector, y: Vector) -> Vector:
    result: Vector = np.maximum(x, 0) - x * y + np.log1p(np.exp(-np.abs(x)))
    return result


_ELEMENTWISE: dict[str, Callable[[Vector, Vector], Vector]] = {
    "mse_loss": lambda x, y: (x - y) ** 2,
    "l1_loss": lambda x, y: np.abs(x - y),
    "smooth_l1_loss": lambda x, y: np.abs(x - y),
    "huber_loss": lambda x, y: np.abs(x - y),
    "binary_cross_entropy": _bce,
    "binary_cross_entropy_with_logits": _bce_with_logits,
}
"""Losses that are a mean over elements; those that are monotonic in the distance may stand for each other here."""
