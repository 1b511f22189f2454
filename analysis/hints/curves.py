"""The curves that hints are looked for in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepscope.store import Trial
from stepscope.store.errors import StoreError

Vector = NDArray[np.float64]

FEWEST = 12
"""Fewer observations than this say nothing."""
_STATISTICS = {"value": ("std", "abs_max", "zero_fraction"), "gradient": ("norm",), "update": ("norm",)}
_MOST_NODES = 300


@dataclass(frozen=True)
class Curve:
    """A statistic of a node over the steps of a trial."""

    node: str
    quantity: str
    statistic: str
    steps: NDArray[np.int64]
    values: Vector


def loss_node(trial: Trial) -> str:
    """The name of the trial's loss; empty if there is none."""
    losses = [node.name for node in trial.nodes if node.type == "loss"]
    return "loss" if "loss" in losses else losses[-1] if losses else ""


def loss_curve(trial: Trial, kind: str | None) -> Curve | None:
    """The loss over the steps of a kind, finite values only."""
    name = loss_node(trial)
    return _read(trial, name, "value", "mean", kind) if name else None


def curves(trial: Trial, kind: str | None) -> Iterator[Curve]:
    """All curves but the loss's."""
    loss = loss_node(trial)
    for node in [node for node in trial.nodes if node.name != loss][:_MOST_NODES]:
        for quantity in node.quantities:
            for statistic in _STATISTICS.get(quantity, ()):
                curve = _read(trial, node.name, quantity, statistic, kind)
                if curve is not None:
                    yield curve


def main_kind(trial: Trial) -> str:
    """The kind with the most steps: mixing kinds would compare apples with pears."""
    return max(trial.kinds, key=trial.step_kinds.count)


def aligned(curve: Curve, loss: Curve) -> tuple[Vector, Vector]:
    """The values of two curves at the steps that both have."""
    if np.array_equal(curve.steps, loss.steps):
        return curve.values, loss.values
    _, here, there = np.intersect1d(curve.steps, loss.steps, return_indices=True)
    return curve.values[here], loss.values[there]


def _read(trial: Trial, node: str, quantity: str, statistic: str, kind: str | None) -> Curve | None:
    try:
        steps, values = trial.series(node, statistic=statistic, quantity=quantity, kind=kind)
    except StoreError:
        return None
    good = np.isfinite(values)
    if good.sum() < FEWEST:
        return None
    return Curve(node, quantity, statistic, steps[good], values[good])
