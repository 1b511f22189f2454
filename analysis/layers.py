"""The layers of a trial: modules with a weight matrix, whose outputs are in the graph."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from stepscope.analysis.flow import Place
from stepscope.analysis.history import History, Values
from stepscope.analysis.parameters import gradients, trainable
from stepscope.analysis.robust import median
from stepscope.analysis.view import View

_CLASSES = ("Linear", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d")
_RECURRENT = ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell")
_TABLES = ("Embedding", "EmbeddingBag")


@dataclass(frozen=True)
class Layer:
    """A linear or convolutional layer.

    Attributes:
        module: its path, which is also the node of its output.
        weight: the node of its weight.
        shape: of its weight.
        fan_in: how many inputs each of its outputs sums over.
    """

    module: str
    module_class: str
    weight: str
    shape: tuple[int, ...]
    fan_in: int

    @property
    def elements(self) -> int:
        """How many elements its weight has."""
        return math.prod(self.shape)


def layers(view: View) -> list[Layer]:
    """The layers that take part in training, in data-flow order."""
    found = []
    for module in view.trial.network:
        if module.module_class not in _CLASSES or module.path not in view.nodes:
            continue
        for info in module.parameters:
            weight = info.names[0]
            if info.name == "weight" and len(info.shape) >= 2 and info.trainable and weight in view.nodes:
                kernel = math.prod(info.shape[2:])
                inputs = info.shape[0] if "Transpose" in module.module_class else info.shape[1]
                found.append(Layer(module.path, module.module_class, weight, info.shape, max(1, inputs * kernel)))
    return sorted(found, key=lambda layer: view.position[layer.module])


def recurrent_layers(view: View) -> list[Layer]:
    """The weights by which recurrent layers read their input, in data-flow order."""
    found = []
    for module in view.trial.network:
        for info in module.parameters if module.module_class in _RECURRENT and module.path in view.nodes else ():
            weight = info.names[0]
            if info.name in ("weight_ih", "weight_ih_l0") and weight in view.nodes:
                found.append(Layer(module.path, module.module_class, weight, info.shape, info.shape[1]))
    return sorted(found, key=lambda layer: view.position[layer.module])


def hand_made_layers(view: View) -> list[Layer]:
    """Matrices of the user's own modules that follow each other, ``(a, b)`` and ``(b, c)``: as in ``x @ w1 @ w2``.

    Where one begins with the size at which the one before ends, the first dimension is that of the inputs; where they
    fit the other way round, as in ``F.linear(x, w1)``, it is the second.
    """
    own = [
        Layer(p.module, p.module_class, p.node, p.shape, 0)
        for p in trainable(view)
        if len(p.shape) == 2 and min(p.shape) > 1 and p.module_class not in (*_CLASSES, *_RECURRENT, *_TABLES)
    ]
    forwards = [layer for layer in own if _follows(layer, own, view, inputs=0)]
    backwards = [layer for layer in own if _follows(layer, own, view, inputs=1)]
    chosen, inputs = (forwards, 0) if len(forwards) >= len(backwards) else (backwards, 1)
    return [replace(layer, fan_in=layer.shape[inputs]) for layer in chosen]


def _follows(layer: Layer, every: list[Layer], view: View, *, inputs: int) -> bool:
    """Whether another matrix of the same module ends with what this one begins with, or begins where it ends."""
    beside = [other.shape for other in every if other != layer and other.module == layer.module]
    begins, ends = layer.shape[inputs], layer.shape[1 - inputs]
    fed = any(shape and shape[-1] == begins for shape in _input_shapes(view))
    before, behind = (any(shape[end] == size for shape in beside)
                      for end, size in ((1 - inputs, begins), (inputs, ends)))  # fmt: skip
    return (before or fed) and (behind or before)


def _input_shapes(view: View) -> list[tuple[int, ...] | None]:
    return [view.shape(place, view.training[0]) for place in view.flow.of_type("input")] if view.training else []


def gradient_of(view: View, node: str) -> History | None:
    """The gradient of a node: of the loss group that reaches it with the most steps."""
    return max(gradients(view, node), key=len, default=None)


def rms_gradient(view: View, layer: Layer) -> float:
    """The root mean square gradient of a layer's weight, in the median of the training steps; NaN if it has none."""
    history = gradient_of(view, layer.weight)
    if history is None:
        return math.nan
    norms = history.of("norm")
    norms = norms[np.isfinite(norms)]
    return float(np.median(norms)) / math.sqrt(layer.elements) if len(norms) else math.nan


def rms_output_gradient(view: View, layer: Layer) -> float:
    """The root mean square gradient of a layer's output, in the median of the training steps; NaN if it has none."""
    history = gradient_of(view, layer.module)
    count = elements(view, Place(layer.module, view.nodes[layer.module].roles[-1]))
    if history is None or not count:
        return math.nan
    return median(history.of("norm")) / math.sqrt(count)


def elements(view: View, place: Place) -> int:
    """How many elements a place's value has in the last training step that has it; 0 if there is none."""
    for step in reversed(view.training):
        shape = view.shape(place, step)
        if shape is not None:
            return math.prod(shape)
    return 0


def rms(history: History) -> Values:
    """``(n,)``: the root mean square of all elements."""
    values: Values = np.sqrt(history.of("mean") ** 2 + history.of("std") ** 2)
    return values


def update_ratio(view: View, layer: Layer) -> Values:
    """``(n,)``: the norm of the update over that of the weight; without steps in which either is zero."""
    update, value = view.history(layer.weight, "update"), view.history(layer.weight)
    steps, first, second = np.intersect1d(update.steps, value.steps, return_indices=True)
    del steps
    moved, norm = update.of("norm")[first], value.of("norm")[second]
    good = np.isfinite(moved) & (moved > 0) & (norm > 0)
    ratio: Values = moved[good] / norm[good]
    return ratio
