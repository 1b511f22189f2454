"""The rule ``growing-signal``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.history import History, Values
from stepscope.analysis.layers import layers, rms
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class GrowingSignal(Rule):
    """What goes through an untrained net grows from layer to layer, by orders of magnitude in all.

    Symptom: the first losses are huge, gradients explode, and the loss becomes NaN or falls very slowly.

    How it is measured: the root mean square of what each linear or convolutional layer gives, in data-flow order, in
    the first recorded step. It counts if the largest is so many times the first one's, and no single layer makes most
    of the way: one that does is a matter of its own weights.

    Causes: residual blocks without a normalisation; sums over neighbours, or over a longer side, that are not divided
    by how many they are; weights that are too large throughout.

    Remedy: normalise within each block, scale each branch by 1 / sqrt(number of blocks), or take means where sums are.

    Source: He et al. (2015) and Glorot and Bengio (2010): the variance of what layers give is to stay the same.

    Attributes:
        times: the largest over the first. Source: of 1,000 sound runs with three layers and more two were beyond 20,
            each by one layer.
        alone: the part of that, in its logarithm, that a single layer may make.
        least: with fewer layers nothing grows from one to the next.
    """

    name = "growing-signal"
    causes = "Residual blocks without normalisation, sums over neighbours that are not divided, or too large weights."
    remedy = "Normalise within each block, scale branches by 1 / sqrt(number of blocks), take means in place of sums."
    times: float = 50.0
    alone: float = 0.6
    least: int = 4

    def check(self, view: View) -> Iterable[Finding]:
        known = {layer.module for layer in layers(view)}
        places = [place for place in view.flow.vertices if place.node in known]
        sizes = [(place, float(rms(history)[0])) for place in places if len(history := _values(view, place))]
        sizes = [(place, size) for place, size in sizes if 0 < size < np.inf]
        if len(sizes) < self.least:
            return
        peaks = np.maximum.accumulate([size for _, size in sizes])
        grown = float(peaks[-1] / peaks[0])
        steepest = float(np.max(peaks[1:] / peaks[:-1]))
        if grown > self.times and steepest < grown**self.alone:
            yield self._finding(view, [place for place, _ in sizes], peaks)

    def _finding(self, view: View, places: list[Place], peaks: Values) -> Finding:
        last = int(np.argmax(peaks == peaks[-1]))
        frontier = int(np.argmax(peaks > 10 * peaks[0]))
        each = float((peaks[-1] / peaks[0]) ** (1 / max(last, 1)))
        first, end, place = places[0], places[last], places[frontier]
        summary = (
            f"What goes through the net grows from layer to layer: {first.node} gives numbers of a size of "
            f"{peaks[0]:.2g}, {end.node} of {peaks[-1]:.3g}, {each:.2g} times as much with each layer, before anything "
            f"is learned (explodes on the way forward)."
        )
        shown = [evidence(_values(view, one), "norm", f"a size of {size:.2g} at first")
                 for one, size in ((end, peaks[-1]), (first, peaks[0]))]  # fmt: skip
        return self.finding(
            view, place.node, "warning", summary, shown, step=view.began, confidence=0.8,
            nodes=list(dict.fromkeys(one.node for one in places[frontier + 1 : last + 1] if one.node != place.node)),
        )  # fmt: skip


def _values(view: View, place: Place) -> History:
    return view.history(place.node, role=place.role)
