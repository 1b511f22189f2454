"""The rule ``input-scale``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.curves import LEAST_POINTS, fallen, loss_curves
from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.flow import Place
from stepscope.analysis.history import History
from stepscope.analysis.layers import Layer, gradient_of, layers, recurrent_layers, rms
from stepscope.analysis.loss_inputs import is_floating
from stepscope.analysis.robust import median
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_ENOUGH = 10
_RESHAPES = frozenset(["flatten", "unflatten", "view", "reshape", "squeeze", "unsqueeze", "transpose", "permute"])


@dataclass(frozen=True)
class InputScale(Rule):
    """Inputs whose size is far from 1 go straight into a layer.

    Symptom: slow or unstable learning; the first layer gets gradients that fit no other layer.

    How it is measured: the root mean square of a floating input, in the median of the training steps. It counts only
    where the first layer really gets it like that: the size of its output must be what its weights make of such an
    input (a division by 255 inside ``forward`` is seen by that), and a normalisation in front takes care of it. Of a
    recurrent layer, whose outputs have bounds, the gradient of the weights that read the input tells: it is that of
    their bias times the input.
    The same for an input whose standard deviation is a small part of its mean: all samples look alike, then.
    And one whose mean and deviation are exactly the same in every batch was normalised by its own batch.

    Causes: pixels from 0 to 255, raw table columns, a normalisation that was left out or done twice.

    Remedy: subtract the mean and divide by the standard deviation of the training data.

    Attributes:
        large, small: sizes beyond which it counts. Source: a net with He initialisation keeps sizes, so that outputs
            start this far from the 1 that losses and later layers are made for; SageMaker's CheckInputImages has
            only a mean, of 0.2, and alarms on pixels from 0 to 1.
        severe: a size that counts even if the loss falls; between ``large`` and this, as with ``smallish``.
        smallish, fall: sizes (or deviations, as a part of it) below this are worth knowing, and count if the loss has
            not lost this part of its start in 50 steps or more. Source: pixels that were divided by 255 twice have
            0.002 to 0.004; quiet sounds can do with 0.01.
    """

    name = "input-scale"
    causes = "Pixels from 0 to 255, raw table columns, or a normalisation that was left out or done twice."
    remedy = "Subtract the mean and divide by the standard deviation of the training data."
    large: float = 10.0
    severe: float = 20.0
    fall: float = 0.5
    smallish: float = 2e-2
    small: float = 1e-3

    def check(self, view: View) -> Iterable[Finding]:
        known = {layer.module: layer for layer in (*layers(view), *recurrent_layers(view))}
        for place in view.flow.of_type("input"):
            readers = [reader for reader in _readers(view, place) if reader.node in known]
            history = view.history(place.node, role=place.role)
            if not len(history) or _is_looked_up(view, place) or _is_of_pairs(view, place):
                continue
            size = median(rms(history))
            level = self._level(view, size) or self._of_offset(view, history) if readers else None
            if level and any(_arrives(view, size, known[reader.node], reader.role) for reader in readers):
                yield self._finding(view, place, level, known[readers[0].node])
        yield from self._of_own_batch(view)

    def _level(self, view: View, size: float) -> Level | None:
        """How bad an input of this size is; None if it is not."""
        if size > self.severe or 0 < size < self.small:
            return "warning"
        if not (0 < size < self.smallish or size > self.large):
            return None
        return "warning" if fallen(view) < self.fall and not view.is_young and not _fell_at_once(view) else "info"

    def _of_own_batch(self, view: View) -> Iterable[Finding]:
        """Inputs whose mean and deviation are the same in every batch, to the last digits, but not in every sample."""
        for place in view.flow.of_type("input"):
            history = view.history(place.node, role=place.role)
            if len(history) < _ENOUGH or not is_floating(view, place):
                continue
            mean, std = history.of("mean"), history.of("std")
            same = np.abs(mean).max() < 1e-4 * std.min() and np.ptp(std) < 1e-3 * std.min()
            is_one_batch = np.ptp(history.of("abs_mean")) == 0  # always: then of course its mean is the same
            if same and not is_one_batch and median(history.over_batch("mean", "batch_std")) > 1e-3 * std.min():
                summary = (
                    f"{place.node} seems to be normalised by its own batch: its mean is 0 and its deviation "
                    f"{std[0]:.3g} in every batch, so that what a sample is depends on the others beside it."
                )
                yield self.finding(
                    view, place.node, "info", summary, [evidence(history, "mean", "the same in every batch")],
                    step=int(history.steps[0]), confidence=0.7, causes="Mean and deviation are taken of each batch.",
                    remedy="Take mean and standard deviation of the training data once, and use them everywhere.",
                )  # fmt: skip

    def _of_offset(self, view: View, history: History) -> Level | None:
        """How bad it is that an input hardly differs from its mean; None if it does. What is constant has a rule."""
        share = median(history.of("std")) / max(median(rms(history)), 1e-30)
        if not 0 < share < self.smallish:
            return None
        return "warning" if fallen(view) < self.fall and not view.is_young else "info"

    def _finding(self, view: View, place: Place, level: Level, layer: Layer) -> Finding:
        history = view.history(place.node, role=place.role)
        mean, std = float(history.of("mean")[0]), float(history.of("std")[0])
        summary = (
            f"{place.node} goes into {layer.module} unnormalised: mean {mean:.3g}, std {std:.3g}, "
            f"from {float(history.of('min')[0]):.3g} to {float(history.of('max')[0]):.3g}."
        )
        shown = [evidence(history, "std", f"std {std:.3g}"), evidence(history, "mean", f"mean {mean:.3g}")]
        return self.finding(
            view, place.node, level, summary, shown,
            step=int(history.steps[0]), nodes=[layer.module], confidence=0.8,
        )  # fmt: skip


def _is_looked_up(view: View, place: Place) -> bool:
    """Whether an embedding reads it: what goes elsewhere, too, is a mask that was made of it."""
    modules = (view.modules.get(link.place.node) for link in view.flow.sinks.get(place, ()))
    return any(module is not None and module.module_class.startswith("Embedding") for module in modules)


def _fell_at_once(view: View) -> bool:
    """Whether nearly all of the very first loss is gone, be it in the first steps."""
    return any(float(curve.values[0]) > 20 * curve.end > 0 for curve in loss_curves(view) if len(curve) >= LEAST_POINTS)


def _is_of_pairs(view: View, place: Place) -> bool:
    """Whether it is square, with a row and a column for each row of another input: who is near whom, say."""
    shape = view.shape(place, view.training[-1]) or ()
    if len(shape) < 2 or shape[-1] != shape[-2]:
        return False
    others = (view.shape(other, view.training[-1]) or () for other in view.flow.of_type("input") if other != place)
    return any(len(other) > 1 and other[-2] == shape[-1] and other[:-2] == shape[:-2] for other in others)


def _readers(view: View, place: Place) -> list[Place]:
    """What reads a tensor, perhaps in another shape."""
    found = []
    for link in view.flow.sinks.get(place, ()):
        is_reshaped = view.flow.vertices[link.place].operation in _RESHAPES
        found += _readers(view, link.place) if is_reshaped else [link.place]
    return found


def _arrives(view: View, size: float, layer: Layer, role: str) -> bool:
    """Whether the layer's output is as large as its weights make of an input of this size, within a factor of 30."""
    if layer.weight.rpartition(".")[2].startswith("weight_ih"):
        return _arrives_at_gates(view, size, layer)
    output, weight = view.history(layer.module, role=role), view.history(layer.weight)
    if not len(output) or not len(weight):
        return False
    expected = float(weight.of("std")[0]) * math.sqrt(layer.fan_in) * size
    bias = view.history(f"{layer.module}.bias")
    expected = math.hypot(expected, float(rms(bias)[0]) if len(bias) else 0.0)
    ratio = float(rms(output)[0]) / max(expected, 1e-30)
    return 1 / 30 < ratio < 30


def _arrives_at_gates(view: View, size: float, layer: Layer) -> bool:
    """The same of a recurrent layer: the gradient of its weight against that of its bias, in the first step."""
    weight, bias = gradient_of(view, layer.weight), gradient_of(view, layer.weight.replace("weight_ih", "bias_ih"))
    if weight is None or bias is None or not len(weight) or not len(bias):
        return False
    own, unit = float(weight.of("norm")[0]) / math.sqrt(layer.fan_in), float(bias.of("norm")[0])
    return 1 / 30 < own / (unit * size) < 30 if unit > 0 and size > 0 else own == 0  # gates that are all shut or open
