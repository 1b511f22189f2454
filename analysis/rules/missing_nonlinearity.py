"""The rule ``missing-nonlinearity``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.flow import Place
from stepscope.analysis.lines import sites_of
from stepscope.analysis.neurons import neurons_of
from stepscope.analysis.parameters import listed
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store import Step

_LINEAR = frozenset(["linear", "conv1d", "conv2d", "conv3d"])

_CONTAINERS = frozenset(["Sequential", "ModuleList", "ModuleDict"])


@dataclass(frozen=True)
class MissingNonlinearity(Rule):
    """Two linear layers follow one another with nothing between them: they are no more than one.

    Symptom: the net is as weak as a smaller one.

    How it is measured: the output of a linear layer goes into another one and nowhere else. What was computed between
    them is not in the graph if it has no name, so the numbers decide: for ``y = W h + b`` the products of value and
    gradient agree, ``h . dh = (y - b) . dy``, for each kept sample. A tanh or GELU between them breaks that, a ReLU or
    dropout shows as zeros in ``dh``, and a leaky ReLU as a smaller ``dh`` where ``h`` is negative. Layers that first
    narrow and then widen are a low-rank factor on purpose. Where one part of a net ends with the one and another part
    begins with the other (a body and its head), both may be meant to be so: that is worth knowing only. Convolutions
    whose outputs are added to their inputs, and whose sums go into the next, are told if there are three and more.

    Causes: an activation that was forgotten, or replaced by ``nn.Identity``.

    Remedy: put an activation between them, or make one layer of the two.

    Attributes:
        tolerance: of the agreement, relative to the size of the products. Source: float32 rounding of sums of a few
            hundred products, ten times over.
        evenness: how much smaller, or larger, ``dh`` may be where ``h`` is negative. Source: chance keeps a few hundred
            values well within a factor of two; leaky ReLUs have slopes of 0.01 to 0.3.
    """

    name = "missing-nonlinearity"
    causes = "An activation between them was forgotten."
    remedy = "Put an activation between the two layers, or make one layer of them."
    tolerance: float = 1e-3
    evenness: float = 0.5

    def check(self, view: View) -> Iterable[Finding]:
        yield from self._residual(view)
        steps = view.training[:: max(1, len(view.training) // 4)][:5]
        told = set()
        for site in sites_of(view, "no activation") if steps else ():
            given = [place for place in site.before if view.flow.vertices[place].type == "calculated"]
            one, two = (_layers_behind(view, places) for places in (given, site.after))
            if len(one) == len(two) == 1 and one != two and self._is_alone(view, one[0], two[0], steps):
                told.add(two[0])
                yield self._finding(view, one[0], two[0])
        for place, vertex in view.flow.vertices.items():
            before = _only_source(view, place) if vertex.operation in _LINEAR else None
            if before is None or place in told or not steps or _is_factor(view, before, place, steps[0]):
                continue
            if _is_adapter(view, before, place):
                continue
            found = [self._is_linear(step, before, place) for step in steps]
            if all(found) and self._is_even(steps, before):
                yield self._finding(view, before, place)

    def _residual(self, view: View) -> Iterable[Finding]:
        """Convolutions one after the other, each with a way around it, and nothing else between them."""
        sites = sites_of(view, "linear residual")
        layers = list(dict.fromkeys(place.node for site in sites for place in site.after))
        if len(layers) < 2:
            return
        summary = (
            f"The convolutions {listed(layers)} get the sum of what the one before was given and gave: nothing between "
            f"them is non-linear, so that all of them are no more than one."
        )
        history = view.history(layers[0])
        yield self.finding(
            view, layers[0], "warning", summary, [evidence(history, "std", "what it makes of such a sum")],
            step=view.began, nodes=layers[1:], confidence=0.8, source=sites[0].source,
        )  # fmt: skip

    def _is_alone(self, view: View, before: Place, after: Place, steps: Sequence[Step]) -> bool:
        """Whether a layer's output goes into one other layer only, and not to make a low-rank or separable one."""
        readers = {place.node for place in _readers(view, before)}
        is_meant = _is_factor(view, before, after, steps[0]) or _is_adapter(view, before, after)
        return len(readers) == 1 and before.node != after.node and not is_meant

    def _is_linear(self, step: Step, before: Place, after: Place) -> bool:
        """Whether the products of value and gradient agree for the kept samples of a step."""
        h, dh = _samples(step, before, "value"), _samples(step, before, "gradient")
        y, dy = _samples(step, after, "value"), _samples(step, after, "gradient")
        if h is None or dh is None or y is None or dy is None or not np.any(dh):
            return False
        bias = _bias(step, after.node, y.shape[-1])
        if bias is None or np.mean(dh == 0) > 0.01:
            return False
        left, right = (h * dh).sum(-1), ((y - bias) * dy).sum(-1)
        size = np.abs(h * dh).sum(-1) + np.abs((y - bias) * dy).sum(-1)
        return bool(np.all(np.abs(left - right) <= self.tolerance * size + 1e-20))

    def _is_even(self, steps: Sequence[Step], place: Place) -> bool:
        """Whether gradients are as large where the value is negative as where it is positive."""
        values = np.concatenate([_flat(step, place, "value") for step in steps])
        sizes = np.abs(np.concatenate([_flat(step, place, "gradient") for step in steps]))
        if not (values < 0).any() or not (values > 0).any():
            return False
        ratio = sizes[values < 0].mean() / max(sizes[values > 0].mean(), 1e-30)
        return bool(self.evenness < ratio < 1 / self.evenness)

    def _finding(self, view: View, before: Place, after: Place) -> Finding:
        summary = f"Nothing lies between the linear layers {before.node} and {after.node}: they are no more than one."
        history = view.history(before.node, role=before.role)
        shown = [evidence(history, "std", "goes into the next layer as it is")]
        level: Level = "info" if _are_of_two_parts(view, before.node, after.node) else "warning"
        return self.finding(
            view, before.node, level, summary, shown,
            step=view.began, nodes=[after.node], confidence=0.85,
        )  # fmt: skip


def _are_of_two_parts(view: View, before: str, after: str) -> bool:
    """Whether two layers belong to modules that were put together, and are not two of the same kind of block."""
    one, two = (view.modules.get(node.rpartition(".")[0]) for node in (before, after))
    if one is None or two is None or one.path == two.path:
        return False
    return one.module_class != two.module_class or one.module_class in _CONTAINERS


def _only_source(view: View, place: Place) -> Place | None:
    """The linear layer whose output goes into this one and nowhere else."""
    sources = [link for link in view.flow.sources.get(place, ()) if view.flow.vertices[link.place].type == "calculated"]
    if len(sources) != 1 or sources[0].lag or not sources[0].differentiable:
        return None
    before = sources[0].place
    is_linear = view.flow.vertices[before].operation in _LINEAR
    if not is_linear or len(view.flow.sinks.get(before, ())) != 1 or before.node == place.node:
        return None
    # Another name of the same tensor is no second layer.
    return None if before in list(view.flow.same_tensor(place)) and not _has_weight(view, place) else before


def _readers(view: View, place: Place) -> Iterator[Place]:
    """What takes a tensor, under whichever name: the output of a last module is that of its container, too."""
    for link in view.flow.sinks.get(place, ()):
        if place in view.flow.same_tensor(link.place):
            yield from _readers(view, link.place)
        else:
            yield link.place


def _layers_behind(view: View, places: Iterable[Place]) -> list[Place]:
    """The linear layers that made some places."""
    return list(dict.fromkeys(layer for place in places for layer in _layer_behind(view, place)))


def _layer_behind(view: View, place: Place) -> list[Place]:
    """The linear layer that made a place, through other names of its output and batch normalisation."""
    while not _has_weight(view, place) or view.flow.vertices[place].operation == "batch_norm":
        sources = [link.place for link in view.flow.sources.get(place, ()) if not link.lag]
        behind = [source for source in sources if view.flow.vertices[source].type == "calculated"]
        if len(behind) != 1:
            return []
        place = behind[0]
    return [place] if view.flow.vertices[place].operation in _LINEAR else []


def _has_weight(view: View, place: Place) -> bool:
    return any(view.flow.vertices[link.place].type == "parameter" for link in view.flow.sources.get(place, ()))


def _is_factor(view: View, before: Place, after: Place, step: Step) -> bool:
    """Whether the first layer narrows what the second one widens again."""
    weights = [view.nodes.get(f"{node}.weight") for node in (before.node, after.node)]
    shapes = [step.find(weight.name).shape for weight in weights if weight is not None and _in(step, weight.name)]
    if len(shapes) != 2 or any(len(shape) < 2 for shape in shapes):
        return True
    (middle, inputs), (outputs, taken) = (shape[:2] for shape in shapes)
    sources = [link.place for link in view.flow.sources.get(before, ()) if not link.lag]
    source = next((place for place in sources if view.flow.vertices[place].type != "parameter"), None)
    given = view.shape(source, step) if source is not None and len(shapes[0]) > 2 else None
    grouped = (taken < middle and len(shapes[1]) > 2) or (given is not None and len(given) > 2 and inputs < given[1])
    is_flattened = len(shapes[0]) > 2 and len(shapes[1]) == 2 and middle < inputs  # fewer weights than one layer's
    return middle < min(inputs, outputs) or grouped or is_flattened


def _is_adapter(view: View, before: Place, after: Place) -> bool:
    """Whether two layers lie beside another one that reads the same, and are added to it (LoRA)."""
    read = {link.place for link in view.flow.sources.get(before, ())}
    added = {link.place for link in view.flow.sinks.get(after, ())}
    beside = (link.place for place in read for link in view.flow.sinks.get(place, ()) if link.place != before)
    return any(
        view.flow.vertices[place].operation in _LINEAR
        and not added.isdisjoint(link.place for link in view.flow.sinks.get(place, ()))
        for place in beside
    )


def _in(step: Step, node: str) -> bool:
    return step.layout.row(node, "value", None, None) is not None


def _samples(step: Step, place: Place, quantity: str) -> NDArray[np.float64] | None:
    """``(samples, neurons)`` of a place; None unless all neurons were kept."""
    neurons = neurons_of(step, place, quantity)
    if neurons is None or neurons.samples.shape[-1] != neurons.total:
        return None
    return neurons.samples.astype(np.float64)


def _flat(step: Step, place: Place, quantity: str) -> NDArray[np.float64]:
    samples = _samples(step, place, quantity)
    return np.empty(0) if samples is None else samples.reshape(-1)


def _bias(step: Step, node: str, width: int) -> NDArray[np.float64] | None:
    """The bias of a layer spread over its output; zeros if it has none; None if it was not kept in full."""
    name = f"{node}.bias"
    if not _in(step, name):
        return np.zeros(1)
    neurons = neurons_of(step, Place(name, "parameter"))
    if neurons is None or neurons.samples.shape[-1] != neurons.total or width % neurons.total:
        return None
    values = neurons.samples[0].astype(np.float64)
    is_last = len(step.find(f"{node}.weight").shape) == 2 if _in(step, f"{node}.weight") else True
    repeated = np.tile(values, width // len(values)) if is_last else np.repeat(values, width // len(values))
    return np.asarray(repeated)
