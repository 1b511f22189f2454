"""The rule ``kept-mask``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.neurons import neurons_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store import Step

_MOST, _LEAST = 12, 5
_CUTTING = frozenset(["relu", "relu6", "threshold", "hardtanh", "hardswish", "softshrink", "hardshrink", "max_pool2d"])


@dataclass(frozen=True)
class KeptMask(Rule):
    """The same units are dropped in every step of the training, and are there where the net is evaluated.

    Symptom: a part of the weights never learns, and what it gives disturbs every evaluation.

    How it is measured: the features of a module's output that are exactly zero for all samples of all training steps
    looked at, while nearly all of them vary in the steps of another kind. A unit that died is zero in both.

    Causes: a dropout of one's own whose mask is drawn once, when it is made; a mask that is kept from the first batch.

    Remedy: draw the mask in each forward pass.

    Attributes:
        share: of the features. Source: of ours; by chance a few units are zero on one kind of data alone.
        alive: the part of them that must vary elsewhere.
    """

    name = "kept-mask"
    causes = "A dropout of one's own draws its mask once, when it is made, and not in each forward pass."
    remedy = "Draw the mask in forward(), for each batch."
    share: float = 0.2
    alive: float = 0.9

    def check(self, view: View) -> Iterable[Finding]:
        others = [step for step in view.steps if step.kind not in view.training_kinds][-_MOST:]
        steps = view.training[:: max(1, len(view.training) // _MOST)]
        if not others or len(steps) < _LEAST:
            return
        found = [found for place in self._places(view) if (found := self._look(view, steps, others, place)) is not None]
        if found:
            yield self._finding(view, found)

    def _places(self, view: View) -> list[Place]:
        places = [
            place for place, vertex in view.flow.vertices.items() if vertex.type == "calculated" and vertex.module
        ]
        return sorted(places, key=lambda place: view.position.get(place.node, 0))

    def _look(self, view: View, steps: list[Step], others: list[Step], place: Place) -> tuple[Place, int, int] | None:
        is_cut = view.flow.vertices[place].operation in _CUTTING  # units that other data leaves open
        if is_cut or not np.median(view.history(place.node, role=place.role).of("zero_fraction")) >= self.share:
            return None
        zero, elsewhere = _always_zero(steps, place), _always_zero(others, place)
        if zero is None or elsewhere is None or zero.shape != elsewhere.shape or zero.mean() < self.share:
            return None
        is_kept = float(np.mean(~elsewhere[zero])) >= self.alive and zero.sum() >= _LEAST and not zero.all()
        return (place, int(zero.sum()), len(zero)) if is_kept else None

    def _finding(self, view: View, found: list[tuple[Place, int, int]]) -> Finding:
        place, count, total = found[0]
        history = view.history(place.node, role=place.role)
        summary = (
            f"The same units of {place.node} are zero in every training step ({count} of {total}), and are not in "
            f"steps of another kind: a dropout whose mask was drawn once."
        )
        return self.finding(
            view, place.node, "warning", summary, [evidence(history, "zero_fraction", "the same ones in each step")],
            step=view.began, nodes=[other.node for other, _, _ in found[1:]], confidence=0.9,
        )  # fmt: skip


def _always_zero(steps: list[Step], place: Place) -> NDArray[np.bool_] | None:
    """``(features,)``: which are exactly zero for all samples, in all of some steps; None if that is not known."""
    zero: NDArray[np.bool_] | None = None
    for step in steps:
        neurons = neurons_of(step, place)
        if neurons is None or neurons.statistics is None or neurons.statistics.shape[1] != neurons.total:
            continue
        here = (neurons.statistics == 0).all(axis=0)
        if zero is not None and zero.shape != here.shape:
            return None
        zero = here if zero is None else zero & here
    return zero
