"""The rule ``channel-order``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.history import Values
from stepscope.analysis.neurons import tensor_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.units import unit_of
from stepscope.analysis.view import View, evidence
from stepscope.store import Step

_MOST, _LEAST, _CHANNELS = 12, 2, 16


@dataclass(frozen=True)
class ChannelOrder(Rule):
    """The channels of pictures, or the columns of a table, have another order where the net is evaluated.

    Symptom: the training is fine, the evaluation is poor, and looks like overfitting.

    How it is measured: the mean of each channel (of each column of a table) over the kept numbers, in training steps
    and in those of another kind, and how it varies from step to step. In the order as given, at least two are far from
    each other; in another order, the same for all, every one finds its own.

    Causes: pictures that were read by OpenCV (blue first) for the one, and by PIL (red first) for the other; columns
    that are read by position from another file.

    Remedy: one function that reads and prepares the data, for all of it.

    Attributes:
        far: times what the means vary by. Source: ten times the usual 3 would be a chance of nothing; of ours.
        near: the same for one that fits.
    """

    name = "channel-order"
    causes = "Another library, or another file, gives the channels or columns in another order (RGB, BGR)."
    remedy = "Read and prepare all data with the same function."
    far: float = 15.0
    near: float = 4.0

    def check(self, view: View) -> Iterable[Finding]:
        for kind in sorted({step.kind for step in view.steps} - view.training_kinds):
            others = [step for step in view.steps if step.kind == kind][-_MOST:]
            steps = view.training[:: max(1, len(view.training) // _MOST)]
            for place in view.flow.of_type("input"):
                order = self._order(_means(steps, place), _means(others, place))
                if order:
                    yield self._finding(view, place, kind, order, others[0].number)

    def _order(self, known: Values, other: Values) -> list[int]:
        """Which channel of the one stands at each place of the other; empty if it is the same order, or none fits."""
        if len(known) < _LEAST or len(other) < _LEAST or known.shape[1:] != other.shape[1:] or known.shape[1] < 2:
            return []
        spread = max(float(known.std(0).max()), float(other.std(0).max()), 1e-6)
        apart = np.abs(np.median(other, axis=0)[:, None] - np.median(known, axis=0)[None]) / spread
        own, order = np.diag(apart), apart.argmin(axis=1)
        fits = bool(np.all(apart.min(axis=1) < self.near)) and len(set(order.tolist())) == len(order)
        return order.tolist() if fits and (own > self.far).sum() >= _LEAST else []

    def _finding(self, view: View, place: Place, kind: str, order: list[int], step: int) -> Finding:
        summary = (
            f"{place.node} has its channels in another order in steps of kind {kind!r} than in training: there stands "
            f"{order} where training has {sorted(order)} (by their means)."
        )
        history = view.history(place.node, role=place.role, training=False)
        return self.finding(
            view, place.node, "warning", summary, [evidence(history, "mean", "the same as a whole", kind)], step=step,
            confidence=0.9,
        )  # fmt: skip


def _means(steps: list[Step], place: Place) -> Values:
    """``(steps, channels)``: the mean of each channel over the kept neurons, or of each column."""
    found = []
    for step in steps:
        tensor = tensor_of(step, place)
        neurons = tensor.neurons if tensor is not None else None
        if tensor is None or neurons is None or neurons.statistics is None or len(tensor.shape) < 2:
            continue
        means, shape = neurons.statistics[0].astype(np.float64), tensor.shape[1:]
        count = shape[-1] if len(shape) == 2 else shape[0]
        if not 1 < count <= _CHANNELS or not tensor.info.dtype.startswith("float"):
            continue
        unit = unit_of(np.arange(len(means)) * neurons.total // len(means), shape)
        found.append([float(means[unit == one].mean()) for one in range(count) if np.any(unit == one)])
    return np.array(found) if len({len(row) for row in found}) == 1 else np.empty((0, 0))
