"""The rule ``scrambled-input``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.layers import layers
from stepscope.analysis.neurons import neurons_of, tensor_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store import Step

_LEAST_SAMPLES, _MOST_STEPS, _LEAST_PLACES = 12, 12, 4
_CONVOLUTIONS = ("Conv1d", "Conv2d", "Conv3d")


@dataclass(frozen=True)
class ScrambledInput(Rule):
    """Pictures or series whose channels came last, and were reshaped instead of permuted: colours and places are mixed.

    Symptom: a convolutional net learns far less than it should, and augmentations make it worse; shown as pictures, its
    inputs are stripes of a small copy.

    How it is measured: of inputs ``(batch, channels, ...)`` of a convolution that are kept whole (``neurons`` of the
    recorder), neighbouring places of a channel should be alike. If the very same numbers, read as
    ``(batch, ..., channels)``, have neighbours that differ far less, in nearly all kept samples, then that is what they
    are.

    Causes: ``x.reshape(batch, channels, height, width)`` of ``(batch, height, width, channels)``; the same of series.

    Remedy: ``x.permute(0, 3, 1, 2)``, or ``x.transpose(1, 2)`` of a series.

    Attributes:
        ratio: the differences of neighbours in that reading, against those as given, in the median. Source: of ours;
            for pictures that are right it is above 1, for noise it is 1.
        share: the part of the samples for which it must be below 1.
    """

    name = "scrambled-input"
    causes = "reshape() or view() of (batch, height, width, channels) to (batch, channels, height, width)."
    remedy = "Use permute(0, 3, 1, 2), or transpose(1, 2) of a series: reshape() does not move a number."
    ratio: float = 0.9
    share: float = 0.9

    def check(self, view: View) -> Iterable[Finding]:
        first = [layer for layer in layers(view) if layer.module_class in _CONVOLUTIONS]
        for place in view.flow.of_type("input") if first else ():
            read_by = {link.place.node for link in view.flow.sinks.get(place, ())}
            if any(layer.module in read_by for layer in first):
                ratios = _ratios(view.training[:: max(1, len(view.training) // _MOST_STEPS)], place)
                if len(ratios) and np.median(ratios) < self.ratio and np.mean(ratios < 1) >= self.share:
                    yield self._finding(view, place, float(np.median(ratios)))

    def _finding(self, view: View, place: Place, ratio: float) -> Finding:
        shape = view.shape(place, view.training[-1]) or ()
        summary = (
            f"{place.node} {tuple(shape)} seems to be reshaped where its channels should be permuted: read as "
            f"{(shape[0], *shape[2:], shape[1])}, its neighbouring places differ {ratio:.2g} times as much as now."
        )
        history = view.history(place.node, role=place.role)
        nodes = [link.place.node for link in view.flow.sinks.get(place, ())]
        return self.finding(
            view, place.node, "warning", summary, [evidence(history, "std", "the numbers are right, their places not")],
            step=view.began, nodes=nodes, confidence=0.9,
        )  # fmt: skip


def _ratios(steps: list[Step], place: Place) -> NDArray[np.float64]:
    """How much neighbours differ if the channels come last, against now: for each different kept sample.

    What all samples have in common, a frame or stripes say, is taken off before.
    """
    found: dict[bytes, NDArray[np.float64]] = {}
    shape: tuple[int, ...] = ()
    for step in steps:
        tensor, kept = tensor_of(step, place), neurons_of(step, place)
        if tensor is None or kept is None or tensor.info.batch_dim != 0 or kept.total != kept.samples.shape[1]:
            break
        shape = tensor.shape[1:]
        if len(shape) < 2 or shape[0] < 2 or min(shape[1:]) < _LEAST_PLACES or shape[0] == shape[-1]:
            return np.empty(0)
        found.update((sample.tobytes(), sample.astype(np.float64)) for sample in kept.samples)
    samples = np.array([sample for sample in found.values() if sample.size == math.prod(shape)])
    if len(samples) < _LEAST_SAMPLES:
        return np.empty(0)
    samples -= samples.mean(0)
    now = _roughness(samples.reshape(-1, *shape), range(2, len(shape) + 1))
    last = _roughness(samples.reshape(-1, *shape[1:], shape[0]), range(1, len(shape)))
    return np.asarray(last[now > 0] / now[now > 0])


def _roughness(values: NDArray[np.float64], axes: range) -> NDArray[np.float64]:
    """Of each sample, the mean square of the differences between neighbours along some axes."""
    each = [(np.diff(values, axis=axis) ** 2).reshape(len(values), -1).mean(1) for axis in axes]
    return np.asarray(np.mean(each, axis=0))
