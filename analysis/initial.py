"""Weights that are what an initialisation gives: nothing was learned, or loaded, into them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from stepscope.analysis.parameters import has_gradient
from stepscope.analysis.view import View
from stepscope.store.records import ModuleInfo, ParameterInfo

_RECURRENT = ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell")
_FEWEST, _ENOUGH = 64, 1600
_SIGMAS = 4.0
"""How many standard errors of an estimate count as equal."""


@dataclass(frozen=True)
class Frozen:
    """A frozen weight of two or more dimensions: its node, its module, how many elements it has."""

    node: str
    module: ModuleInfo
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def frozen_weights(view: View) -> Iterator[Frozen]:
    """The weights that require no gradient, or get none and are in no watched optimizer, and never change."""
    are_watched = any(info.optimizers for module in view.trial.network for info in module.parameters)
    for module in view.trial.network:
        for info in module.parameters:
            node, is_weight = info.names[0], not info.is_buffer and info.recorded and len(info.shape) > 1
            is_left = are_watched and not info.optimizers and not has_gradient(view, node)
            if is_weight and (is_left or not info.trainable) and _stays(view, node):
                yield Frozen(node, module, info.shape)


def as_initialised(view: View, weights: Iterable[Frozen]) -> list[Frozen]:
    """Those whose bound, spread and centre are what torch's own layers, or a usual initialisation, start with.

    A uniform distribution is known by its shape. A normal one is not, as what was learned looks like it: there the
    standard deviation must agree, to a few percent for the largest of them, and no bias be anything but zero.
    """
    given = list(weights)
    uniform = [weight for weight in given if _is_uniform(view, weight)]
    others = [weight for weight in given if weight not in uniform and _is_normal(view, weight)]
    normal = [weight for weight in others if _has_no_bias(view, weight.module)]
    return uniform + (normal if any(weight.elements >= _ENOUGH for weight in normal) else [])


def _is_uniform(view: View, weight: Frozen) -> bool:
    count = weight.elements
    if count < _FEWEST:
        return False
    mean, std, largest = (float(view.history(weight.node, training=False).of(name)[0]) for name in _NAMES)
    for bound in _bounds(weight):
        error = bound / math.sqrt(3 * count)
        is_full = bound * (1 - 12 / count) < largest <= bound * 1.0001
        if (
            is_full
            and abs(mean) < _SIGMAS * error
            and abs(math.sqrt(3) * std / bound - 1) < _SIGMAS * 0.45 / count**0.5
        ):
            return True
    return False


def _is_normal(view: View, weight: Frozen) -> bool:
    count = weight.elements
    if count < _FEWEST:
        return False
    mean, std, largest = (float(view.history(weight.node, training=False).of(name)[0]) for name in _NAMES)
    for spread in _spreads(weight):
        farthest = spread * math.sqrt(2 * math.log(2 * count))
        is_usual = abs(std / spread - 1) < _SIGMAS / math.sqrt(2 * count) and largest < 1.4 * farthest
        if is_usual and abs(mean) < _SIGMAS * spread / math.sqrt(count):
            return True
    return False


def _bounds(weight: Frozen) -> Iterator[float]:
    """The bounds of uniform initialisations: torch's own for layers, Xavier's, He's."""
    if weight.module.module_class in _RECURRENT:
        gates = {"LSTM": 4, "GRU": 3}.get(weight.module.module_class.removesuffix("Cell"), 1)
        yield 1 / math.sqrt(weight.shape[0] // gates)
    fan_in, fan_out = _fans(weight)
    yield 1 / math.sqrt(fan_in)
    yield math.sqrt(6 / (fan_in + fan_out))
    yield math.sqrt(6 / fan_in)


def _spreads(weight: Frozen) -> Iterator[float]:
    """The standard deviations of normal ones: of embeddings, of transformers, He's and Xavier's."""
    if "Embedding" in weight.module.module_class:
        yield 1.0
    fan_in, fan_out = _fans(weight)
    yield 0.02
    yield math.sqrt(2 / fan_in)
    yield math.sqrt(2 / fan_out)
    yield math.sqrt(2 / (fan_in + fan_out))


def _fans(weight: Frozen) -> tuple[int, int]:
    """As torch counts them, also where it counts a transposed convolution the wrong way round."""
    kernel = math.prod(weight.shape[2:])
    return max(1, weight.shape[1] * kernel), max(1, weight.shape[0] * kernel)


def _has_no_bias(view: View, module: ModuleInfo) -> bool:
    biases = [info for info in module.parameters if not info.is_buffer and "bias" in info.name]
    return all(_is_zero(view, info) for info in biases)


def _is_zero(view: View, info: ParameterInfo) -> bool:
    history = view.history(info.names[0], training=False)
    return len(history) > 0 and float(history.of("abs_max")[0]) == 0


def _stays(view: View, node: str) -> bool:
    norms = view.history(node, training=False).of("norm")
    return len(norms) > 0 and bool((norms == norms[0]).all())


_NAMES = ("mean", "std", "abs_max")
