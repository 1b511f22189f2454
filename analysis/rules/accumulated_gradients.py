"""The rule ``accumulated-gradients``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.history import Values
from stepscope.analysis.layers import elements, layers
from stepscope.analysis.leftovers import Leftover, leftovers
from stepscope.analysis.lines import line_of_step
from stepscope.analysis.neurons import neurons_of, tensor_of
from stepscope.analysis.optimizers import held_by
from stepscope.analysis.parameters import is_unchanged, learning, listed
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store.records import NEURON_STATISTICS

_LEAST = 5
_MEAN = NEURON_STATISTICS.index("mean")
_NORMS = ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "LayerNorm", "GroupNorm")
_MOST = 60
"""So many steps tell as much as all of them."""


@dataclass(frozen=True)
class _Sums:
    """A bias's gradient, and the sum over the batch of the gradient of the output it is added to.

    Both ``(n, elements)``; or ``(n, 1)``, their sums over all elements, where single ones were not kept.
    """

    steps: Values
    bias: Values
    output: Values


@dataclass(frozen=True)
class AccumulatedGradients(Rule):
    """Gradients are never set to zero, so that each step adds its own to those of all steps before.

    Symptom: training starts well and becomes unstable; gradient norms grow with the number of steps.

    How it is measured: a bias is added to every sample, so the sum of its gradient is exactly the sum of the gradient
    of the output of its layer (or normalisation). Where it is instead that sum plus the bias's gradient of the step
    before, in (almost) all pairs of neighbouring recorded steps, nothing was set to zero. Accumulation on purpose
    starts anew now and then. The layers of each optimizer are judged together.

    Or an optimizer uses the sum of what two losses gave, although one of them trains the parameters of another one that
    lie before: its gradient was left over in a net that it only went through. It is a warning where both work against
    each other, as those of a GAN do; else two losses may be meant.

    Causes: ``optimizer.zero_grad()`` is missing, sits outside the loop, or is called on another optimizer.

    Remedy: call ``optimizer.zero_grad()`` once a step, before ``backward()``.

    Attributes:
        share: of the pairs of steps. Source: accumulation over 16 micro-batches still starts anew in every 16th step,
            15 of 16 are 0.94. Where an optimizer is watched, it must step wherever gradients arrive, besides.
        tolerance: of the equality, relative to the terms. Source: float32 rounding of long sums.
        against: the cosine of both, in the median. Source: a critic is to lower what its generator wants to raise.
        times: without neighbouring steps: how many times its own sum the bias's gradient must be in the median.
            Clipping and averaging over devices only make it smaller.
    """

    name = "accumulated-gradients"
    causes = "optimizer.zero_grad() is missing, sits outside of the loop, or is called on another optimizer."
    remedy = "Call optimizer.zero_grad() once in every step, before backward()."
    share: float = 0.95
    tolerance: float = 5e-3
    times: float = 3.0
    against: float = -0.3

    def check(self, view: View) -> Iterable[Finding]:
        judged: dict[tuple[str, ...], list[tuple[float, str]]] = {}
        holders = held_by(view)
        for module in _with_bias(view):
            if is_unchanged(view, f"{module}.bias"):
                continue  # in no optimizer, so that its zero_grad does not reach it
            sums = _sums(view, module)
            share = self._share(sums) if sums is not None and _is_stepped(view, f"{module}.bias") else None
            if share is not None:
                judged.setdefault(holders.get(f"{module}.bias", ()), []).append((share, f"{module}.bias"))
        for names, shares in judged.items():
            if np.median([share for share, _ in shares]) >= self.share:
                held = [node for node in learning(view) if holders.get(node, ()) == names]
                yield self._finding(view, max(shares)[1], held)
        left: dict[tuple[tuple[str, ...], str, str], list[Leftover]] = {}
        for found in leftovers(view):
            left.setdefault((found.optimizers, found.left, found.own), []).append(found)
        yield from (self._left_over(view, group) for group in left.values())

    def _left_over(self, view: View, group: list[Leftover]) -> Finding:
        first, *others = group
        other, own = (name.partition(":")[2] for name in (first.left, first.own))
        against = float(np.median([found.against for found in group]))
        summary = (
            f"Gradients are left over: the optimizer of {listed(found.node for found in group)} uses the sum of what "
            f"{own!r} and {other!r} gave (their cosine is {against:.2g}), but {other!r} trains the parameters of "
            f"another optimizer, and only passed through. No zero_grad() lies between."
        )
        shown = [evidence(view.history(first.node, name), "norm", name) for name in (first.left, first.own, "gradient")]
        return self.finding(
            view, first.node, "warning" if against < self.against else "info", summary, shown,
            step=view.training[0].number, nodes=[found.node for found in others], confidence=0.9,
            source=line_of_step(view, "backward"), causes="All gradients are set to zero once, before both losses.",
            remedy="Call zero_grad() of an optimizer right before backward() of its own loss.",
        )  # fmt: skip

    def _share(self, sums: _Sums) -> float | None:
        """The share of neighbouring steps in which the gradient was carried on; None if too few can tell."""
        following = np.flatnonzero(np.diff(sums.steps) == 1) + 1
        if len(following) < _LEAST:
            return self._share_of_far_steps(sums)
        before, now, own = sums.bias[following - 1], sums.bias[following], sums.output[following]
        size = _norm(before) + _norm(now) + _norm(own)
        telling = _norm(before) > 0.05 * size
        if telling.sum() < _LEAST:
            return None
        carried = _norm(now - before - own) <= self.tolerance * size
        return float(np.mean(carried[telling]))

    def _share_of_far_steps(self, sums: _Sums) -> float | None:
        """The same where no neighbouring steps were recorded: never its own sum alone, but several times as much."""
        bias, own = sums.bias[1:], sums.output[1:]
        if len(own) < _LEAST or not np.all(_norm(own) > 0):
            return None
        alone = _norm(bias - own) <= self.tolerance * (_norm(bias) + _norm(own))
        return float(np.mean(~alone)) if np.median(_norm(bias) / _norm(own)) > self.times else 0.0

    def _finding(self, view: View, bias: str, held: list[str]) -> Finding:
        history = view.history(bias, "gradient")
        norms = history.of("norm")
        summary = (
            f"Gradients are never set to zero: that of {bias} is carried on from step to step "
            f"(its norm goes from {norms[0]:.2g} to {norms[-1]:.2g})."
        )
        shown = [evidence(history, "norm", "carried on from step to step")]
        return self.finding(
            view, bias, "error", summary, shown, step=int(history.steps[0]), confidence=0.97,
            source=line_of_step(view, "backward"), nodes=[node for node in held if node != bias],
        )  # fmt: skip


def _with_bias(view: View) -> list[str]:
    """The modules that add a bias to each sample: layers, and normalisations."""
    known = [module.path for module in view.trial.network if module.module_class in _NORMS]
    return [layer.module for layer in layers(view)] + [path for path in known if path in view.nodes]


def _sums(view: View, module: str) -> _Sums | None:
    """Of layers that are called once a step and whose gradients belong to one loss."""
    places = view.flow.of_node(module)
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
    return _Sums(
        bias.steps[first].astype(np.float64),
        (bias.of("mean")[first] * count_bias)[:, None],
        (output.of("mean")[first] * count_output)[:, None],
    )


def _single(view: View, bias: Place, output: Place) -> _Sums | None:
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
    return _Sums(np.array(steps), np.array(biases), np.array(sums)) if steps else None


def _is_stepped(view: View, bias: str) -> bool:
    """Whether the optimizer steps (or no optimizer is known) wherever gradients arrive: else they add up on purpose."""
    updates, given = len(view.history(bias, "update")), len(view.history(bias, "gradient"))
    return updates == 0 or updates > given / 2


def _norm(rows: Values) -> Values:
    return np.asarray(np.linalg.norm(rows, axis=1))


def _count(view: View, place: Place, steps: NDArray[np.int64]) -> Values:
    """The elements of a place at each of the first steps: the last batch of an epoch may be smaller."""
    of_number = {step.number: step for step in view.training}
    shapes = [view.shape(place, of_number[number]) for number in steps[:_MOST].tolist()]
    return np.array([np.nan if shape is None else float(math.prod(shape)) for shape in shapes])
