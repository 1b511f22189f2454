"""Gradients of biases beside what they must be: the sums of the gradients of the outputs that they are added to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis.flow import Place
from stepscope.analysis.history import Values
from stepscope.analysis.layers import elements, layers
from stepscope.analysis.neurons import neurons_of, tensor_of
from stepscope.analysis.view import View
from stepscope.store.records import NEURON_STATISTICS

_MEAN = NEURON_STATISTICS.index("mean")
_NORMS = ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "LayerNorm", "GroupNorm")
_ROUNDING = 1e-4
"""The part of its norm below which a sum says nothing: the scores of a softmax have gradients whose sum is zero."""
_MOST = 60
"""So many steps tell as much as all of them."""
_CALLS = 4
"""Of a layer that is called more often in a step, which calls make up its gradient is not tried."""


@dataclass(frozen=True)
class OwnSums:
    """A bias's gradient, and the sum over the batch of the gradient of the output it is added to.

    Both ``(n, elements)``; or ``(n, 1)``, their sums over all elements, where single ones were not kept. Of several
    calls in a step, ``of_calls``, those that made up the first gradient.
    """

    steps: Values
    bias: Values
    output: Values
    of_calls: bool = False


def with_bias(view: View) -> list[str]:
    """The modules that add a bias to each sample: layers, and normalisations."""
    known = [module.path for module in view.trial.network if module.module_class in _NORMS]
    return [layer.module for layer in layers(view)] + [path for path in known if path in view.nodes]


def own_sums(view: View, module: str) -> OwnSums | None:
    """Of layers that are called once a step, or a few times, and whose gradients belong to one loss."""
    places = view.flow.of_node(module)
    if 1 < len(places) <= _CALLS:
        return _of_calls(view, module, places)
    bias, output = view.history(f"{module}.bias", "gradient"), view.history(module, "gradient")
    if len(places) != 1 or not len(bias) or len(bias) != len(output) or len(view.training[-1].iterations) > 1:
        return None
    biases = view.flow.of_node(f"{module}.bias")
    if len(biases) != 1 or len(view.flow.sinks.get(biases[0], ())) != 1:
        return None
    single = _single(view, biases[0], places[0])
    if single is not None:
        return single
    count_bias, count_output = elements(view, biases[0]), _count(view, places[0], output.steps)
    first = slice(None, len(count_output))
    sums = OwnSums(
        bias.steps[first].astype(np.float64),
        (bias.of("mean")[first] * count_bias)[:, None],
        (output.of("mean")[first] * count_output)[:, None],
    )
    if np.median(norms(sums.bias) / np.maximum(bias.of("norm")[first], 1e-30)) < _ROUNDING:
        return None
    return sums


def _of_calls(view: View, module: str, places: list[Place]) -> OwnSums | None:
    """Of a layer that several losses, or samples, go through one by one: a critic, one half of a pair."""
    bias = view.history(f"{module}.bias", "gradient")
    outputs = [view.history(module, "gradient", role=place.role) for place in places]
    biases = view.flow.of_node(f"{module}.bias")
    if len(biases) != 1 or not len(bias) or bias.steps[0] > 0 or len(view.training[-1].iterations) > 1:
        return None
    if any(not np.array_equal(output.steps, bias.steps) for output in outputs):
        return None
    whole = bias.of("mean") * elements(view, biases[0])
    part = [
        output.of("mean")[:_MOST] * _count(view, place, output.steps)
        for place, output in zip(places, outputs, strict=True)
    ]
    for chosen in (some for size in range(1, len(part) + 1) for some in combinations(part, size)):
        own = np.sum(chosen, axis=0)
        if own[0] and abs(whole[0] - own[0]) <= 1e-3 * abs(own[0]):
            steps = bias.steps[:_MOST].astype(np.float64)
            return OwnSums(steps, whole[:_MOST, None], own[:, None], of_calls=True)
    return None


def sums_of_groups(view: View, node: str) -> OwnSums | None:
    """Of a bias that groups of losses train one by one: what it got from those that made up its first gradient."""
    known, used = view.nodes.get(node), view.history(node, "gradient")
    groups = [name for name in known.quantities if name.startswith("gradient:")] if known else []
    parts = [view.history(node, name) for name in groups[:_CALLS]]
    if not len(used) or used.steps[0] > 0 or len(view.training[-1].iterations) > 1:
        return None
    if any(not np.array_equal(part.steps, used.steps) for part in parts):
        return None
    whole, found = used.of("mean"), None
    for chosen in (some for size in range(1, len(parts) + 1) for some in combinations(parts, size)):
        own = np.sum([part.of("mean") for part in chosen], axis=0)
        is_alone = np.abs(whole - own) <= 1e-3 * np.abs(own)
        if is_alone[1:].any():
            return None  # cleared there, whatever lies between: a loss may come in later
        if own[0] and is_alone[0]:
            found = OwnSums(
                used.steps[:_MOST].astype(np.float64), whole[:_MOST, None], own[:_MOST, None], of_calls=True
            )
    return found


def _single(view: View, bias: Place, output: Place) -> OwnSums | None:
    """The same for each element, where all neurons were kept: scores of a softmax have gradients whose sum is zero."""
    steps, biases, sums = [], [], []
    for step in view.training[:_MOST]:
        own, behind = neurons_of(step, bias, "gradient"), neurons_of(step, output, "gradient")
        tensor = tensor_of(step, output, "gradient")
        if own is None or behind is None or behind.statistics is None or tensor is None or tensor.info.batch_dim != 0:
            return None
        shape, values = tensor.shape, own.samples.astype(np.float64).ravel()
        if (
            len(shape) not in (2, 3)
            or behind.total != math.prod(shape[1:])
            or behind.statistics.shape[1] != behind.total
        ):
            return None
        means = behind.statistics[_MEAN].astype(np.float64).reshape(shape[1:])
        total = shape[0] * (means.sum(0) if len(shape) == 3 else means)
        if len(total) != len(values):
            return None
        steps.append(float(step.number))
        biases.append(values)
        sums.append(total)
    return OwnSums(np.array(steps), np.array(biases), np.array(sums)) if steps else None


def norms(rows: Values) -> Values:
    return np.asarray(np.linalg.norm(rows, axis=1))


def _count(view: View, place: Place, steps: NDArray[np.int64]) -> Values:
    """The elements of a place at each of the first steps: the last batch of an epoch may be smaller."""
    of_number = {step.number: step for step in view.training}
    shapes = [view.shape(place, of_number[number]) for number in steps[:_MOST].tolist()]
    return np.array([np.nan if shape is None else float(math.prod(shape)) for shape in shapes])
