"""The rule ``oversmoothing``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.loss_inputs import comparisons
from stepscope.analysis.neurons import neurons_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store import Step

_FEWEST, _FALLING, _MOST = 4, 2, 60
_ALONE = frozenset(
    ["Linear", "ReLU", "LeakyReLU", "ELU", "SELU", "SiLU", "GELU", "Sigmoid", "Tanh", "Softplus", "LayerNorm",
     "Dropout"]
)  # fmt: skip
"""Modules that treat each position by itself."""


@dataclass(frozen=True)
class Oversmoothing(Rule):
    """The vertices of a graph, or the moments of a sequence, become the same, layer by layer.

    Symptom: a net with a few rounds of messages learns, a deeper one does not; its answer is one for all vertices.

    How it is measured: of tensors ``(batch, positions, features)`` with more than one position, the standard deviation
    of each feature over the positions of a sample, as a part of the size of the values, at the end of a training of 50
    steps or more. It must fall from layer to layer, over at least two of them, from a large part to next to nothing,
    and stay there up to a prediction that is asked for something for each position.

    Causes: many means over neighbours (graph convolutions, attention without a skip): each brings what it mixes nearer
    to the mean of all.

    Remedy: add what went into each round to what comes out of it, use fewer rounds, or normalise between vertices.

    Attributes:
        varied, smooth: the parts between which it falls. Source: ten rounds without a skip end at 0.004, with skips at
            0.5; of 237 other runs only two have a tensor below 0.02 on the way, in front of a skip. Li, Han and Wu
            (2018), "Deeper Insights into Graph Convolutional Networks".
        falls: the share of the layers on the way that bring it down.
    """

    name = "oversmoothing"
    causes = "Many means over neighbours, one after the other, without a skip: each brings all nearer to their mean."
    remedy = "Add what went into a round to what comes out of it (a skip), use fewer rounds, or normalise vertices."
    varied: float = 0.3
    smooth: float = 0.05
    falls: float = 0.75

    def check(self, view: View) -> Iterable[Finding]:
        steps = view.training[-2:]
        for prediction in [] if view.is_young else dict.fromkeys(_for_each_position(view)):
            way = [(place, _within(view, steps, place)) for place in _way(view, prediction)]
            known = [(place, part) for place, part in way if np.isfinite(part)]
            if len(known) >= _FEWEST and min(part for _, part in known) < self.smooth:
                yield from self._judge(view, prediction, known)

    def _judge(self, view: View, prediction: Place, known: list[tuple[Place, float]]) -> Iterable[Finding]:
        parts = np.array([part for _, part in known])
        first = int(np.argmax(parts[: int(np.argmin(parts)) + 1]))
        last = first + int(np.argmax(parts[first:] < self.smooth))
        falling = np.diff(parts[first : last + 1]) < 0
        stays = bool((parts[last:] < 2 * self.smooth).all())
        if _are_in_a_row(view, [place for place, _ in known[first : last + 1]]):
            return
        if stays and last - first >= _FALLING and parts[first] > self.varied and falling.mean() >= self.falls:
            yield self._finding(view, prediction, known[first], known[last], last - first)

    def _finding(
        self, view: View, prediction: Place, first: tuple[Place, float], last: tuple[Place, float], layers: int
    ) -> Finding:
        node = last[0].node
        summary = (
            f"All positions of a sample become the same: from {first[0].node} to {node}, over {layers} layers, the "
            f"part by which they vary falls from {first[1]:.2g} to {last[1]:.2g}: what {prediction.node} is asked for "
            f"at each of them is smoothed into one (collapsed)."
        )
        history = view.history(node, role=last[0].role)
        return self.finding(
            view, node, "warning", summary, [evidence(history, "std", "over all elements")],
            step=view.began, nodes=[prediction.node, first[0].node], confidence=0.85,
        )  # fmt: skip


def _for_each_position(view: View) -> Iterator[Place]:
    """Predictions that are held against one number, or more, for each position of a sample."""
    for comparison in comparisons(view):
        shape = view.shape(comparison.prediction, view.training[-1]) if view.training else None
        asked = math.prod(comparison.target_shape)
        if comparison.target is not None and shape is not None and len(shape) == 3 and asked >= shape[0] * shape[1]:
            yield comparison.prediction


def _are_in_a_row(view: View, places: Sequence[Place]) -> bool:
    """Whether these are plain layers of one ``Sequential``: each position goes through them by itself."""
    parents = {place.node.rpartition(".")[0] for place in places}
    parent = view.modules.get(parents.pop()) if len(parents) == 1 else None
    is_sequence = parent is not None and parent.module_class == "Sequential"
    return is_sequence and all(view.flow.vertices[place].module_class in _ALONE for place in places)


def _way(view: View, prediction: Place) -> list[Place]:
    """What a prediction is computed from, in data-flow order."""
    behind = view.flow.upstream([prediction], differentiable=True)
    calculated = [place for place in behind if view.flow.vertices[place].type == "calculated"]
    return sorted(calculated, key=lambda place: view.position.get(place.node, 0))[-_MOST:]


def _within(view: View, steps: Sequence[Step], place: Place) -> float:
    """The spread of each feature over the positions of a sample, as a part of the values' size; NaN if unknown."""
    parts = [_within_step(view, step, place) for step in steps]
    return float(np.mean(parts))


def _within_step(view: View, step: Step, place: Place) -> float:
    shape, kept = view.shape(place, step), neurons_of(step, place)
    if shape is None or len(shape) != 3 or shape[1] < 2 or kept is None or not kept.samples.size:
        return math.nan
    values = kept.samples.astype(np.float64)
    feature = (np.arange(values.shape[1]) * kept.total // values.shape[1]) % shape[2]
    several = [values[:, feature == one] for one in np.unique(feature) if (feature == one).sum() > 1]
    size = math.sqrt(np.mean([np.mean(part**2) for part in several])) if several else 0.0
    return math.sqrt(np.mean([part.var(axis=1).mean() for part in several])) / size if size > 0 else math.nan
