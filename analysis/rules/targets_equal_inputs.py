"""The rule ``targets-equal-inputs``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.baseline import baselines
from stepscope.analysis.curves import loss_curves
from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.flow import Place
from stepscope.analysis.history import Values
from stepscope.analysis.lines import line_of_node, sites_of
from stepscope.analysis.loss_inputs import OF_CLASSES, SMALL, Comparison, comparisons, is_floating
from stepscope.analysis.neurons import neurons_of
from stepscope.analysis.relation import Matrix, gather_pairs
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_LEAST = 3
_LEAST_LINE, _LINE = 10, 1e-3
_MOST_STEPS, _LEAST_SAMPLES, _MOST_COLUMNS = 12, 20, 8


@dataclass(frozen=True)
class TargetsEqualInputs(Rule):
    """What a net has to predict is among what it is given.

    Symptom: the loss of a language model falls to almost zero, and what it writes repeats itself.

    How it is measured: the target of a cross-entropy and an integer input of the net have as many elements, and the
    same mean, standard deviation, smallest and largest value and norm, to the last digit, in every training step.
    Where the loss is computed from the input itself, a slice of it may lie in between, which a recording does not
    show: then it is worth knowing only, and only if the loss is close to zero. Of other nets: one neuron of an input
    has the values of the target in all of the kept samples, or ones on a straight line with them (not most of its
    neurons: then a line goes on); where all inputs are targets, it is a reconstruction.

    Where an input of floating numbers and the target are two tensors of the same numbers in all steps, and of the shape
    of the prediction, it is worth knowing: pairs that were made without their noise look like that.

    Of nets that take noise away: what the prediction is compared with is the input itself, which was made in the step
    out of data and random numbers.

    Causes: a window that ends too late, a column that holds the answer, targets that are not shifted by one place (or
    shifted by the model and the data, one forth and one back).

    Remedy: predict ``tokens[:, 1:]`` from ``tokens[:, :-1]``; look whether the model shifts its labels itself.

    Attributes:
        solved: the part of an untrained net's loss. Source: of ours; text cannot be predicted that well.
    """

    name = "targets-equal-inputs"
    about = "loss"
    causes = "The targets of a language model are not shifted by one place against its inputs."
    remedy = "Predict tokens[:, 1:] from tokens[:, :-1]; look whether the model shifts its labels itself."
    solved: float = 0.05

    def check(self, view: View) -> Iterable[Finding]:
        contained: set[Place] = set()
        for comparison in comparisons(view):
            if comparison.target is None:
                continue
            if comparison.target not in contained and _is_compared(comparison):
                found = list(self._contained(view, comparison, comparison.target))
                contained |= {comparison.target} if found else set()
                yield from found
            yield from self._noisy(view, comparison, comparison.target)
            if comparison.operation not in OF_CLASSES:
                yield from self._copied(view, comparison, comparison.target)
                continue
            yield from self._scaled(view, comparison, comparison.target)
            size = math.prod(comparison.target_shape)
            for place in _integer_inputs(view, comparison.prediction, size):
                if place == comparison.target and self._is_solved(view, comparison):
                    yield self._finding(view, place, place, "info", "The targets seem to")
                if place != comparison.target and _are_equal(view, place, comparison.target):
                    text = f"The targets {comparison.target.node}"
                    yield self._finding(view, comparison.target, place, "warning", text)

    def _scaled(self, view: View, comparison: Comparison, target: Place) -> Iterable[Finding]:
        """Classes that are the floating numbers of the input in other units, and are told almost without a mistake."""
        for place in sorted(view.flow.upstream([comparison.prediction])):
            if view.flow.vertices[place].type != "input" or not is_floating(view, place):
                continue
            shape = view.shape(place, view.training[-1]) or ()
            is_whole = math.prod(shape) == math.prod(comparison.target_shape) > shape[0] if shape else False
            if is_whole and _is_multiple(view, place, target) and self._is_solved(view, comparison):
                yield self._finding(view, target, place, "info", "The targets, in other units, seem to")

    def _copied(self, view: View, comparison: Comparison, target: Place) -> Iterable[Finding]:
        """Inputs that come beside targets which are the very same numbers: as they are, no net has anything to do."""
        for place in sorted(view.flow.upstream([comparison.prediction])):
            if view.flow.vertices[place].type != "input" or place.node == target.node or not is_floating(view, place):
                continue
            history = view.history(place.node, role=place.role)
            is_whole = comparison.shape == comparison.target_shape == view.shape(place, view.training[-1])
            if is_whole and not history.is_constant and _are_equal(view, place, target):
                summary = (
                    f"{place.node} and {target.node} are the same numbers in every step. As a pair that is to be "
                    f"learned (noisy and clean, small and large, before and after) they say nothing: was the noise "
                    f"of strength zero?"
                )
                yield self.finding(
                    view, target.node, "info", summary, [evidence(history, "mean", "that of the input as well")],
                    step=int(history.steps[0]), nodes=[place.node, comparison.loss.node], confidence=0.6,
                    causes="Pairs that were made with a noise, a blur or a mask of strength zero.",
                    remedy="Look at a pair; an autoencoder may be given one tensor for both.",
                )  # fmt: skip

    def _noisy(self, view: View, comparison: Comparison, target: Place) -> Iterable[Finding]:
        """A net that is to take noise away, and is asked for what it is given, noise and all."""
        noised = {place for site in sites_of(view, "noised") for place in site.after}
        if target in noised and comparison.shape == comparison.target_shape:
            summary = (
                f"The target is the net's own input {target.node}, with the noise that was added to it in the step: "
                f"the net learns to copy it, noise and all."
            )
            history = view.history(target.node, role=target.role)
            yield self.finding(
                view, target.node, "warning", summary, [evidence(history, "mean", "input and target")],
                step=int(history.steps[0]), nodes=[comparison.loss.node], confidence=0.85,
                source=view.flow.vertices[comparison.loss].source,
                causes="The noisy tensor was taken for the clean one.",
                remedy="Compare with what was there before the noise was added.",
            )  # fmt: skip

    def _contained(self, view: View, comparison: Comparison, target: Place) -> Iterable[Finding]:
        """Numbers that are to be predicted, and stand among those that the prediction is made from."""
        steps = view.training[:: max(1, len(view.training) // _MOST_STEPS)]
        places = (p for p in view.flow.upstream([comparison.prediction]) if view.flow.vertices[p].type == "input")
        for place in sorted(places):
            x, y = gather_pairs(steps, place, target)
            if comparison.operation in OF_CLASSES and not is_floating(view, place):
                continue  # words, one of which is asked for
            if place == target or len(x) < _LEAST_SAMPLES or not 0 < y.shape[1] < x.shape[1]:
                continue  # as many are a reconstruction
            columns = [_column(x, wanted) for wanted in y.T[:_MOST_COLUMNS]]
            if all(column is not None for column in columns):
                same = bool(np.all(x[:, columns[0]] == y[:, 0]))
                history = view.history(target.node, role=target.role)
                summary = (
                    f"{place.node} contains {target.node}: in all of {len(x)} samples its number {columns[0]} "
                    f"{'is the same as' if same else 'is a multiple of'} what is to be predicted: the answer leaks in."
                )
                shown = [evidence(history, "mean", "a copy of a part of the input")]
                yield self.finding(
                    view, target.node, "warning", summary, shown, step=int(history.steps[0]), nodes=[place.node],
                    causes="A window that ends too late, or a column of the table that holds the answer.",
                    remedy="Leave that number out of the inputs.", source=line_of_node(view, place.node),
                )  # fmt: skip

    def _is_solved(self, view: View, comparison: Comparison) -> bool:
        ends = [curve.end for curve in loss_curves(view) if curve.place == comparison.loss]
        known = [baseline.constant for baseline in baselines(view) if baseline.loss == comparison.loss]
        return bool(ends and known) and max(ends) < self.solved * known[0]

    def _finding(self, view: View, target: Place, place: Place, level: Level, what: str) -> Finding:
        history = view.history(target.node, role=target.role)
        summary = f"{what} equal the input {place.node}: the net is asked for what it is given."
        shown = [evidence(history, "mean", "its mean is the input's in every step")]
        confidence = 0.95 if level == "warning" else 0.5
        step = int(history.steps[0])
        return self.finding(
            view, target.node, level, summary, shown, step=step, nodes=[place.node], confidence=confidence
        )


def _is_multiple(view: View, one: Place, other: Place) -> bool:
    """Whether a straight line, the same in all steps, leads from the numbers of a place to those of another."""
    first, second = (view.history(place.node, role=place.role) for place in (one, other))
    if len(first) < _LEAST_LINE or not np.array_equal(first.steps, second.steps):
        return False
    slopes = second.of("std") / first.of("std")
    offsets = [second.of(name) - slopes * first.of(name) for name in ("mean", "min", "max")]
    size = float(np.max(second.of("abs_max")))
    return bool(np.ptp(slopes) < _LINE * np.max(slopes)) and bool(np.ptp(offsets) < _LINE * size)


def _is_compared(comparison: Comparison) -> bool:
    """Whether a prediction is held against a target, and not only made a loss of together with some data."""
    return comparison.operation in SMALL.union(OF_CLASSES) or comparison.shape == comparison.target_shape


def _column(x: Matrix, wanted: Values) -> int | None:
    """Which column of some samples has just these values, or ones that follow from them along a straight line.

    Of few different values, such as classes, many samples are needed, and the rarest value several times.
    """
    values, counts = np.unique(wanted, return_counts=True)
    if len(values) < _LEAST_SAMPLES // 2 and (len(values) < 2 or len(wanted) < 2 * _LEAST_SAMPLES or min(counts) < 3):
        return None
    spread = x.std(0) * wanted.std()
    together = np.abs((x - x.mean(0)).T @ (wanted - wanted.mean())) / len(x)
    same = np.flatnonzero((spread > 0) & (together >= (1 - 1e-9) * spread))
    if not len(same):
        return None
    is_line = 2 * len(same) > np.count_nonzero(x.std(0)) and x.shape[1] > 2  # goes straight on: nothing is copied
    equal = np.flatnonzero(np.all(x == wanted[:, None], axis=0))
    return int(equal[0]) if len(equal) else None if is_line else int(same[0])


def _integer_inputs(view: View, prediction: Place, size: int) -> Iterator[Place]:
    """The integer inputs of this many elements that the prediction was computed from."""
    if not view.training:
        return
    step = view.training[-1]
    for place in view.flow.upstream([prediction]):
        row = step.layout.row(place.node, "value", place.role, None)
        if row is not None and view.flow.vertices[place].type == "input":
            is_integer = step.layout.tensors[row].dtype.startswith(("int", "uint"))
            if is_integer and math.prod(step.find(place.node, role=place.role).shape) == size:
                yield place


def _are_equal(view: View, one: Place, other: Place) -> bool:
    first, second = (view.history(place.node, role=place.role) for place in (one, other))
    if len(first) < _LEAST or not np.array_equal(first.steps, second.steps):
        return False
    return bool(np.array_equal(first.identity, second.identity)) and not _in_another_order(view, one, other)


def _in_another_order(view: View, one: Place, other: Place) -> bool:
    """Whether the samples that were kept of two places differ: words turned round have the same statistics."""
    step = view.training[-1]
    first, second = neurons_of(step, one), neurons_of(step, other)
    if first is None or second is None or first.samples.shape != second.samples.shape:
        return False
    return not np.array_equal(first.samples, second.samples)
