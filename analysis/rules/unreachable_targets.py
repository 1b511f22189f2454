"""The rule ``unreachable-targets``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.bounds import BOUNDS, LEAKY, RESHAPES, line_of_making, maker, operation_of
from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.history import History, Values
from stepscope.analysis.loss_inputs import Comparison, comparisons
from stepscope.analysis.mean_square import is_mean_square
from stepscope.analysis.neurons import neurons_of
from stepscope.analysis.robust import largest, median, smallest
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_CLASSIFICATION = frozenset(["cross_entropy", "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits"])

_LOGARITHMS = frozenset(["log_softmax", "logsigmoid"])
_STEPS, _FEWEST, _MOSTLY = 16, 32, 0.85
_DISTANCES = frozenset(["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"])


@dataclass(frozen=True)
class _Gap:
    """The part of the targets' range that the prediction cannot give, from 0 to 1 in the median of the steps."""

    below: float
    above: float

    @property
    def worst(self) -> float:
        return max(self.below, self.above)


@dataclass(frozen=True)
class UnreachableTargets(Rule):
    """The prediction is made by an activation that can never give what the targets ask for.

    Symptom: the loss falls at first, then stays at a level that no learning rate and no size of the net changes.

    How it is measured: a prediction and a target of the same shape feed a loss. The prediction was made by an
    activation with a bounded range (ReLU, sigmoid, softmax, tanh, ...); over the training steps a part of the range
    of the targets lies outside of it. A leaky ReLU has no bound, but hardly gets below zero: it counts as bounded if
    the prediction in fact stayed within a third of the way to the lowest targets. Of a loss of one's own, the gradient
    must draw the predictions to what is taken for their targets, as every distance does: else those only weigh them.
    One target for all outputs of a sample counts if the gradients show a mean square.
    The shares of a softmax add up to one, so that their mean is known: that of the targets must be the same.

    Causes: an activation after the last layer of a regression (often one that a shared block brings along), or
    targets that were not scaled to the range of the output.

    Remedy: leave the activation out after the last layer, or scale the targets.

    Attributes:
        share: the part of the targets' range that must be out of reach. Source: a twentieth is more than the tails
            of rounding; a sigmoid trained on targets of 0 and 1 has no gap at all.
        severe: from this part on it is an error.
        reached: a leaky ReLU that got this far towards the lowest targets is not bounded by it.
    """

    name = "unreachable-targets"
    causes = (
        "An activation after the last layer (often brought along by a block that is used for hidden layers, too), "
        "or targets that were not scaled to the range of the output."
    )
    remedy = "Leave the activation out after the last layer, or scale the targets into the range that it can give."
    share: float = 0.05
    severe: float = 0.15
    reached: float = 0.35

    def check(self, view: View) -> Iterable[Finding]:
        for comparison in comparisons(view):
            if _is_regression(comparison) or _is_one_for_all(view, comparison):
                yield from self._look(view, comparison)

    def _look(self, view: View, comparison: Comparison) -> Iterable[Finding]:
        assert comparison.target is not None  # a regression has one
        place = maker(view, comparison.prediction)
        operation = operation_of(view, place)
        prediction = _history(view, comparison.prediction)
        target = _history(view, comparison.target)
        bounds = BOUNDS.get(operation) or _observed(operation, prediction)
        is_weighed = operation in _LOGARITHMS and comparison.operation not in _DISTANCES
        if is_weighed and not is_mean_square(view, comparison):
            return  # logarithms are weighed with their targets, not compared
        if operation == "normalize" and view.flow.vertices[comparison.target].type == "calculated":
            return  # what it is held against was normalised, too, after it got its name
        if bounds is None or not len(target) or not len(prediction) or _is_scaled(view, comparison):
            return
        if comparison.operation not in _DISTANCES and not _is_pulled(view, comparison):
            return  # a weight beside it, as an advantage beside a policy's ratio, and no target
        gap = _gap(bounds, target)
        leaks = operation in LEAKY and self._reaches(prediction, target)
        if gap.worst >= self.share and not leaks:
            yield self._finding(view, place, comparison, bounds, gap)
        elif operation == "softmax" and (missed := _missed_sum(prediction, target)) >= self.share:
            yield self._of_shares(view, place, comparison, missed)

    def _of_shares(self, view: View, place: Place, comparison: Comparison, missed: float) -> Finding:
        """Each target lies within reach of a softmax, but not all of them at once."""
        assert comparison.target is not None
        target, prediction = _history(view, comparison.target), _history(view, comparison.prediction)
        given, wanted = median(prediction.of("mean")), median(target.of("mean"))
        summary = (
            f"{comparison.prediction.node} can never reach its targets: what the softmax gives adds up to one in every "
            f"sample ({given:.3g} in the mean), but {comparison.target.node} has a mean of {wanted:.3g}."
        )
        shown = [evidence(prediction, "mean", f"predictions: mean {given:.3g}"),
                 evidence(target, "mean", f"targets: mean {wanted:.3g}")]  # fmt: skip
        others = [name for name in (comparison.prediction.node, comparison.loss.node) if name != place.node]
        return self.finding(
            view, place.node, "error" if missed >= self.severe else "warning", summary, shown,
            step=int(prediction.steps[0]), confidence=0.9, nodes=others, source=line_of_making(view, place),
            causes="A softmax where each number stands for itself.", remedy="Use a sigmoid, or no activation at all.",
        )  # fmt: skip

    def _reaches(self, prediction: History, target: History) -> bool:
        """Whether the lowest predictions came near the lowest targets, in the second half of the steps."""
        _, low, wanted = _common(prediction, target, "min")
        half = slice(len(low) // 2, None)
        with np.errstate(divide="ignore", invalid="ignore"):
            return bool(median(low[half] / np.minimum(wanted[half], -1e-12)) > self.reached)

    def _finding(
        self, view: View, place: Place, comparison: Comparison, bounds: tuple[float, float], gap: _Gap
    ) -> Finding:
        assert comparison.target is not None
        target, prediction = _history(view, comparison.target), _history(view, comparison.prediction)
        side = "below" if gap.below >= gap.above else "above"
        statistic = "min" if side == "below" else "max"
        extreme = smallest if side == "below" else largest
        wanted, given = float(extreme(target.of(statistic))), float(extreme(prediction.of(statistic)))
        operation = operation_of(view, place)
        bound = bounds[0] if side == "below" else bounds[1]
        summary = (
            f"{comparison.prediction.node} can never reach its targets: {operation or place.node} gives "
            f"{'hardly anything' if operation in LEAKY else 'nothing'} {side} {bound:g}, but "
            f"{gap.worst:.0%} of the range of {comparison.target.node} lies {side} it "
            f"({statistic} of the targets {wanted:.3g}, of the predictions {given:.3g})."
        )
        shown = [evidence(prediction, statistic, f"predictions: {statistic} {given:.3g}"),
                 evidence(target, statistic, f"targets: {statistic} {wanted:.3g}")]  # fmt: skip
        others = [name for name in (comparison.prediction.node, comparison.loss.node) if name != place.node]
        return self.finding(
            view, place.node, "error" if gap.worst >= self.severe else "warning", summary, shown,
            step=int(prediction.steps[0]), confidence=0.95 if operation in BOUNDS else 0.7, nodes=others,
            source=line_of_making(view, place),
        )  # fmt: skip


def _is_regression(comparison: Comparison) -> bool:
    """A target of the prediction's shape (or one that broadcasts to it), not classes."""
    if comparison.target is None or comparison.operation in _CLASSIFICATION:
        return False
    floating = "float" in comparison.target_dtype
    return floating and int(np.prod(comparison.shape)) == int(np.prod(comparison.target_shape))


def _is_one_for_all(view: View, comparison: Comparison) -> bool:
    """Whether a square holds all outputs of a sample against its one target, the number of its class, say."""
    if comparison.target is None or comparison.operation in _CLASSIFICATION:
        return False
    fewer = comparison.target_shape == (*comparison.shape[:1], 1) and len(comparison.shape) == 2
    return fewer and view.flow.vertices[comparison.target].type == "target" and is_mean_square(view, comparison)


def _is_scaled(view: View, comparison: Comparison) -> bool:
    """Whether the loss is smaller than it could be for these targets: then it compares with something made of them.

    A mean square is at least the square of the means' distance; a mean absolute error at least that distance.
    """
    assert comparison.target is not None
    loss = _history(view, comparison.loss)
    target, prediction = _history(view, comparison.target), _history(view, comparison.prediction)
    _, one, two = _common(prediction, target, "mean")
    _, std_one, std_two = _common(prediction, target, "std")
    steps, value, _ = _common(loss, loss, "mean")
    if not len(one) or len(steps) != len(one):
        return False
    if comparison.operation == "mse_loss":
        least = (one - two) ** 2 + (std_one - std_two) ** 2
    else:
        distance = np.abs(one - two)
        least = np.minimum(distance, distance**2) / 2
    return bool(np.mean(value < 0.9 * least - 1e-9) > 0.05)


def _is_pulled(view: View, comparison: Comparison) -> bool:
    """Whether a loss of one's own draws the prediction towards its target, as every distance does; or nobody knows."""
    assert comparison.target is not None
    right = judged = 0
    for step in view.training[:: max(1, len(view.training) // _STEPS)]:
        given, wanted = neurons_of(step, comparison.prediction), neurons_of(step, comparison.target)
        slope = neurons_of(step, comparison.prediction, "gradient")
        if given is None or wanted is None or slope is None:
            continue
        if given.samples.shape == wanted.samples.shape == slope.samples.shape:
            moved = slope.samples != 0
            right += int((np.sign(slope.samples) == np.sign(given.samples - wanted.samples))[moved].sum())
            judged += int(moved.sum())
    return judged < _FEWEST or right >= _MOSTLY * judged


def _observed(operation: str, prediction: History) -> tuple[float, float] | None:
    """The bounds of a prediction whose last operation only moves numbers: a ReLU's floor shows as zeros."""
    if operation not in RESHAPES or not len(prediction):
        return None
    low, zeros = prediction.of("min"), prediction.of("zero_fraction")
    return (0.0, np.inf) if np.mean((low == 0) & (zeros > 0)) > 0.9 else None


def _gap(bounds: tuple[float, float], target: History) -> _Gap:
    low, high = target.of("min"), target.of("max")
    width = np.maximum(high - low, 1e-12)
    below = np.clip((bounds[0] - low) / width, 0, 1)
    above = np.clip((high - bounds[1]) / width, 0, 1)
    return _Gap(median(below), median(above))


def _missed_sum(prediction: History, target: History) -> float:
    """How far the means of shares that add up to one lie beside those of their targets, as a part of their range."""
    _, given, wanted = _common(prediction, target, "mean")
    _, low, _ = _common(target, prediction, "min")
    _, high, _ = _common(target, prediction, "max")
    if not len(given) or np.ptp(given) > 1e-4 * abs(given[0]):
        return 0.0
    return median(np.abs(wanted - given) / np.maximum(high - low, 1e-12))


def _common(one: History, other: History, statistic: str) -> tuple[Values, Values, Values]:
    steps, first, second = np.intersect1d(one.steps, other.steps, return_indices=True)
    return steps.astype(np.float64), one.of(statistic)[first], other.of(statistic)[second]


def _history(view: View, place: Place) -> History:
    return view.history(place.node, role=place.role)
