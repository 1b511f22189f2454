"""The losses of a trial as curves: one for each kind of training step that has enough of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.flow import Place
from stepscope.analysis.history import History, Values
from stepscope.analysis.robust import NORMAL
from stepscope.analysis.view import View

LEAST_POINTS = 10


@dataclass(frozen=True)
class Curve:
    """A loss over the training steps of one kind (of all kinds if none has ``LEAST_POINTS``); finite values only."""

    place: Place
    kind: str
    steps: np.ndarray[tuple[int], np.dtype[np.int64]]
    values: Values
    history: History

    def __len__(self) -> int:
        return len(self.values)

    @property
    def start(self) -> float:
        """The level of the first tenth: its median."""
        return float(np.median(self.values[: _tenth(self.values)]))

    @property
    def low_start(self) -> float:
        """The first value, or the level of the first tenth if that is lower: a run may explode at once."""
        return min(float(self.values[0]), self.start)

    @property
    def end(self) -> float:
        """The level of the last tenth: its median."""
        return float(np.median(self.values[-_tenth(self.values) :]))

    @property
    def best(self) -> tuple[int, float]:
        """The step and the level of the lowest running median."""
        smooth = running_median(self.values, _tenth(self.values))
        index = int(np.argmin(smooth))
        return int(self.steps[index]), float(smooth[index])

    @property
    def noise(self) -> float:
        """How far neighbouring points are apart: 1.4826 times the median of their distances."""
        return NORMAL * float(np.median(np.abs(np.diff(self.values)))) if len(self) > 1 else 0.0

    @property
    def usual_noise(self) -> float:
        """The same as a part of each point's level, for the level of the start: what grows is louder."""
        steps = np.abs(np.diff(self.values)) / np.maximum(np.abs(self.values[:-1]), 1e-12)
        return NORMAL * float(np.median(steps)) * abs(self.low_start) if len(self) > 1 else 0.0


def loss_curves(view: View) -> Iterator[Curve]:
    """The curves of all losses that are no terms of others, and of the term whose sign one turns."""
    training = view.training_kinds
    every = zip(view.trial.steps.tolist(), view.trial.step_kinds, strict=True)
    kind_of = {number: kind for number, kind in every if kind in training}
    for place in (*view.objectives, *_turned(view)):
        history = view.history(place.node, role=place.role)
        steps, values = view.trial.series(place.node, role=place.role, statistic="mean")
        good = np.isfinite(values) & np.isin(steps, list(kind_of))
        steps, values = steps[good], values[good]
        kinds = np.array([kind_of[number] for number in steps.tolist()], dtype=object)
        counts = Counter(kinds.tolist())
        frequent = [kind for kind, count in counts.items() if count >= LEAST_POINTS]
        if not frequent and len(values):
            yield Curve(place, "", steps, values, history)
        for kind in frequent:
            yield Curve(place, kind, steps[kinds == kind], values[kinds == kind], history)


def fallen(view: View) -> float:
    """The part of the first loss that is gone at the end, of the curve that fell most; infinite if unknown."""
    if len(view.objectives) > 1:  # they may work against each other
        return np.inf
    falls = [
        (curve.low_start - curve.end) / max(abs(curve.low_start), 1e-12)
        for curve in loss_curves(view)
        if len(curve) >= LEAST_POINTS
    ]
    return max(falls, default=np.inf)


def _turned(view: View) -> list[Place]:
    """Terms that are maximised: the only source of an objective that has the other sign in every step."""
    found = []
    for place in view.objectives:
        terms = [link.place for link in view.flow.sources.get(place, ()) if link.differentiable]
        if len(terms) == 1 and terms[0] in view.losses:
            whole, term = (view.history(p.node, role=p.role).of("mean") for p in (place, terms[0]))
            if len(whole) == len(term) and bool(np.all(whole * term < 0)):
                found.append(terms[0])
    return found


def running_median(values: Values, width: int) -> Values:
    """``(n,)``: the median of each point with its neighbours."""
    if width <= 1 or len(values) <= width:
        return np.full_like(values, np.median(values)) if len(values) <= width and len(values) else values
    left = (width - 1) // 2
    padded = np.pad(values, (left, width - 1 - left), mode="edge")
    middle: Values = np.median(np.lib.stride_tricks.sliding_window_view(padded, width), axis=-1)
    return middle


def _tenth(values: Values) -> int:
    return max(3, len(values) // 10)
