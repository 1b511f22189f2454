"""The rule ``fading-signal``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.curves import fallen
from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.history import Values
from stepscope.analysis.layers import layers
from stepscope.analysis.neurons import neurons_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store import Step
from stepscope.store.records import NEURON_STATISTICS

_STD = NEURON_STATISTICS.index("std")


@dataclass(frozen=True)
class FadingSignal(Rule):
    """What tells samples apart gets smaller from layer to layer, until hardly anything of it is left.

    Symptom: a deep net stays at the loss of a constant answer, from the first step on.

    How it is measured: how much the neurons of each linear or convolutional layer differ over a batch, in data-flow
    order, in the first recorded step and in the last. It counts if the last layer's is such a small part of the
    first one's in both, no single layer makes most of the way, and the loss has hardly fallen.

    Causes: the default initial weights of PyTorch in a deep net of ReLUs without normalisation: each layer keeps about
    a sixth of the variance; weights that are too small throughout.

    Remedy: ``nn.init.kaiming_normal_(weight, nonlinearity="relu")``, or a normalisation in each block.

    Source: He et al. (2015): a variance of 2 / fan_in keeps it; PyTorch's default is 1 / (3 fan_in).

    Attributes:
        left: the part of the spread that is left at first. Source: 0.4 for each of four layers of ReLU.
        still: and at last, when the last layers have moved. Source: of ours.
        alone: the part of that, in its logarithm, that a single layer may make.
        least: with fewer layers there is a cause of its own.
        fall: the part of the first loss that would have gone.
    """

    name = "fading-signal"
    causes = "Default initial weights in a deep net of ReLUs without normalisation, or too small ones throughout."
    remedy = "Use nn.init.kaiming_normal_(weight, nonlinearity='relu'), or a normalisation in each block."
    left: float = 0.03
    still: float = 0.15
    alone: float = 0.6
    least: int = 5
    fall: float = 0.1

    def check(self, view: View) -> Iterable[Finding]:
        if view.is_young or not view.training or not -self.fall < fallen(view) < self.fall:
            return
        known = {layer.module for layer in layers(view)}
        places = [place for place in view.flow.vertices if place.node in known]
        first, last = (_spreads(step, places) for step in (view.training[0], view.training[-1]))
        told = [index for index in range(len(places)) if first[index] > 0 and last[index] > 0]
        if len(told) < self.least:
            return
        spreads, ends = first[told], last[told]
        steepest = float(np.min(spreads[1:] / spreads[:-1]))
        part = float(spreads[-1] / spreads[0])
        if part < self.left and float(ends[-1] / ends[0]) < self.still and steepest > part**self.alone:
            yield self._finding(view, [places[index] for index in told], spreads)

    def _finding(self, view: View, places: list[Place], spreads: Values) -> Finding:
        frontier = int(np.argmax(spreads < 0.3 * spreads[0]))
        each = float((spreads[-1] / spreads[0]) ** (1 / (len(spreads) - 1)))
        summary = (
            f"What tells samples apart fades from layer to layer: it differs by {spreads[0]:.2g} over the batch in "
            f"{places[0].node} and by {spreads[-1]:.2g} in {places[-1].node}, {each:.2g} times as much with each layer "
            f"(initial weights too small for so many layers?), and the loss has hardly fallen."
        )
        shown = [
            evidence(view.history(place.node, role=place.role), "std", f"{spread:.2g} over the batch at first")
            for place, spread in ((places[-1], spreads[-1]), (places[0], spreads[0]))
        ]
        return self.finding(
            view, places[frontier].node, "warning", summary, shown, step=view.began, confidence=0.75,
            nodes=list(dict.fromkeys(place.node for place in places if place != places[frontier])),
        )  # fmt: skip


def _spreads(step: Step, places: list[Place]) -> Values:
    """The root mean square, over the neurons, of their standard deviation over the batch; NaN where it is not known."""
    found = []
    for place in places:
        kept = neurons_of(step, place)
        known = None if kept is None or kept.statistics is None else kept.statistics[_STD].astype(np.float64)
        found.append(np.nan if known is None or not len(known) else float(np.sqrt(np.mean(known**2))))
    return np.asarray(found, np.float64)
