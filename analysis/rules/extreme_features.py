"""The rule ``extreme-features``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.layers import layers
from stepscope.analysis.neurons import neurons_of, tensor_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store import Step
from stepscope.store.records import NEURON_STATISTICS

_ABS_MAX = NEURON_STATISTICS.index("abs_max")


@dataclass(frozen=True)
class ExtremeFeatures(Rule):
    """A few columns of a table are far larger than all others, and drown them.

    Symptom: the net learns from these columns only, or slowly, or not at all.

    How it is measured: the largest magnitude of each feature over the batch, against that of the feature in the middle,
    in the median of five training steps, for inputs ``(batch, features)`` that go straight into a linear layer.

    Causes: columns of raw units (income, time stamps, identifiers) beside normalised ones; missing values coded as
    -9999 or 1e9.

    Remedy: standardise each column, take logarithms of what spreads over decades, and mark missing values apart.

    Attributes:
        factor: between the largest feature and the one in the middle. Source: standardised features differ by ten at
            most; a hundredfold one has a ten-thousandfold curvature.
    """

    name = "extreme-features"
    causes = "Columns of raw units (amounts, time stamps, identifiers) beside others, or missing values coded as 1e9."
    remedy = "Standardise each column, take logarithms where values spread over decades, mark missing values apart."
    factor: float = 100.0

    def check(self, view: View) -> Iterable[Finding]:
        chosen = view.training[:: max(1, len(view.training) // 5)][:5]
        linear = {layer.module for layer in layers(view) if layer.module_class == "Linear"}
        for place in view.flow.of_type("input"):
            if not any(link.place.node in linear for link in view.flow.sinks.get(place, ())):
                continue
            sizes = [size for step in chosen for size in [_sizes(step, place)] if size is not None]
            if len(sizes) >= 3 and len({len(size) for size in sizes}) == 1:
                yield from self._judge(view, place, np.median(sizes, axis=0))

    def _judge(
        self, view: View, place: Place, sizes: np.ndarray[tuple[int], np.dtype[np.float64]]
    ) -> Iterable[Finding]:
        middle = float(np.median(sizes))
        extreme = np.flatnonzero(sizes > self.factor * middle)
        if middle <= 0 or not len(extreme):
            return
        worst = int(np.argmax(sizes))
        more = f" and {len(extreme) - 1} more" if len(extreme) > 1 else ""
        summary = (
            f"Feature {worst}{more} of {place.node} is {sizes[worst] / middle:.3g} times as large as the one in the "
            f"middle ({sizes[worst]:.3g} against {middle:.3g})."
        )
        history = view.history(place.node, role=place.role)
        shown = [evidence(history, "abs_max", "the largest of all")]
        yield self.finding(view, place.node, "warning", summary, shown, step=int(history.steps[0]), confidence=0.8)


def _sizes(step: Step, place: Place) -> np.ndarray[tuple[int], np.dtype[np.float64]] | None:
    """``(kept features,)``: the largest magnitude of each; None for anything but a batch of float features."""
    tensor, kept = tensor_of(step, place), neurons_of(step, place)
    if tensor is None or kept is None or kept.statistics is None or "float" not in tensor.info.dtype:
        return None
    if len(tensor.shape) != 2 or tensor.info.batch_dim != 0 or tensor.shape[1] < 3:
        return None
    return np.asarray(kept.statistics[_ABS_MAX], np.float64)
