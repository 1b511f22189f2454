"""The rule ``constant-output``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.curves import fallen
from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.layers import rms
from stepscope.analysis.loss_inputs import Comparison, comparisons
from stepscope.analysis.neurons import neurons_of, tensor_of
from stepscope.analysis.parameters import listed
from stepscope.analysis.rule import Rule
from stepscope.analysis.units import late_steps
from stepscope.analysis.view import View, evidence
from stepscope.store import Step
from stepscope.store.records import NEURON_STATISTICS

_NORMS = frozenset(["layer_norm", "group_norm", "instance_norm"])
_MEAN, _STD = NEURON_STATISTICS.index("mean"), NEURON_STATISTICS.index("std")


@dataclass(frozen=True)
class ConstantOutput(Rule):
    """The prediction is the same for every sample, whatever the input.

    Symptom: the loss settles where the best constant answer is; accuracy is that of guessing the largest class.

    How it is measured: in the last third of the training, the standard deviation of each neuron over the batch against
    the size of the values. The finding names the first tensor in data-flow order that no longer varies although what
    it is computed from does. For a mean squared error it also counts, as a warning, if the prediction's spread over the
    batch has become a small part of its targets' spread, although it was larger at first, and the objective consists
    of nothing else that a net gives (a value beside a policy may have nothing left to foretell).

    A normalisation that leaves nothing but its bias in the first step is told by itself: where shapes say that it works
    over a single number, in these words.

    Causes: a softmax over a dimension of size one, dead units, a mask or factor of zero, a mean over the batch
    dimension, a representation that collapsed.

    Remedy: look at the named node: its operation, its dimension arguments, and its weights.

    Attributes:
        variation: the spread over the batch, as a part of the size of the values. Source: a thousand
            times the rounding of float32, so that what varies at all is left alone.
        faded: the prediction's spread as a part of the targets'. Source: regressions that learn end at 0.4 to 1 in our
            runs.
        learned: a loss that has lost this part of its start is that of a net that learns: it has not faded.
        least_steps: shorter runs are not judged for having faded.
    """

    name = "constant-output"
    causes = "A softmax over a dimension of size one, dead units, a factor of zero, a mean over the batch dimension."
    remedy = "Look at the named node: its operation, the dimension it works on, and its weights."
    variation: float = 1e-4
    learned: float = 0.5
    faded: float = 0.15
    least_steps: int = 100

    def check(self, view: View) -> Iterable[Finding]:
        steps = late_steps(view)
        if len(steps) < 2:
            return
        found: dict[Place, Place] = {}
        normalised = list(self._normalised_away(view))
        yield from normalised
        behind = view.flow.downstream(place for told in normalised for place in view.flow.of_node(told.node))
        for comparison in comparisons(view):
            if _variation(steps, comparison.prediction) < self.variation and not _is_ratio(view, comparison.prediction):
                first = self._first(view, steps, comparison.prediction)
                if first is not None:
                    found.setdefault(first, comparison.prediction)
        for first, prediction in found.items():
            if first in behind:
                continue
            yield self._finding(view, first, prediction, _variation(steps, first))
        has_learned = fallen(view) > self.learned  # or has several losses, of which none tells
        if not found and not has_learned and view.training[-1].number - view.began >= self.least_steps:
            yield from (self._faded(view, *pair) for pair in _fading(view, steps, self.faded))

    def _normalised_away(self, view: View) -> Iterator[Finding]:
        """Normalisations of a single number each, which is its own mean: what is left is the bias. Each kind once."""
        towards_loss = view.flow.upstream(view.losses)
        away: dict[str, list[Place]] = {}
        for place, vertex in view.flow.vertices.items():
            if vertex.operation in _NORMS and place in towards_loss and _is_bias_alone(view, place):
                over = "one value (a single feature)" if _is_over_one(view, place) else "what does not vary"
                away.setdefault(over, []).append(place)
        for over, places in away.items():
            yield self._of_norms(view, over, places)

    def _of_norms(self, view: View, over: str, places: list[Place]) -> Finding:
        first, *others = sorted(places, key=lambda place: view.position.get(place.node, 0))
        more = f"; so are {listed(place.node for place in others)}" if others else ""
        summary = (
            f"{first.node} is the same for every sample: its {view.flow.vertices[first].operation} normalises over "
            f"{over}, its own mean, so that nothing but its bias is left{more}."
        )
        output = view.history(first.node)
        return self.finding(
            view, first.node, "error", summary, [evidence(output, "std", "what is left")], step=int(output.steps[0]),
            nodes=[place.node for place in others], confidence=0.9,
            causes="A width of 1, a normalisation over one feature, or groups of one channel without any extent.",
            remedy="Leave it out, or normalise over more than one number.",
        )  # fmt: skip

    def _faded(self, view: View, comparison: Comparison, share: float, before: float) -> Finding:
        node = comparison.prediction.node
        summary = (
            f"{node} varies less and less between samples: by {share:.0%} of its targets' spread at last, by "
            f"{before:.0%} at first; it has collapsed towards one answer for all."
        )
        history = view.history(node, role=comparison.prediction.role)
        shown = [evidence(history, "std", "its spread over all elements")]
        step = int(history.steps[0])
        return self.finding(view, node, "warning", summary, shown, step=step, confidence=0.7)

    def _first(self, view: View, steps: list[Step], prediction: Place) -> Place | None:
        """The first constant place that was computed from something that varies."""
        behind = view.flow.upstream([prediction])
        for place in sorted(behind, key=lambda place: view.position.get(place.node, 0)):
            if view.flow.vertices[place].type != "calculated" or _variation(steps, place) >= self.variation:
                continue
            sources = [link.place for link in view.flow.sources.get(place, ())]
            if any(_variation(steps, source) >= 10 * self.variation for source in sources if source != place):
                return place
        return None

    def _finding(self, view: View, first: Place, prediction: Place, variation: float) -> Finding:
        history = view.history(first.node, role=first.role)
        operation = view.flow.vertices[first].operation
        way = "" if first == prediction else f", and with it the prediction {prediction.node}"
        is_zero = bool(np.all(history.of("abs_max")[-3:] == 0))
        how = "it is zero everywhere" if is_zero else f"it varies by {variation:.1g} of its size over the batch"
        summary = f"{first.node} is the same for every sample ({how}){f' after {operation}' if operation else ''}{way}."
        shown = [evidence(history, "std", "its spread over all elements")]
        nodes = [] if first == prediction else [prediction.node]
        return self.finding(
            view, first.node, "error", summary, shown, step=int(history.steps[0]), nodes=nodes, confidence=0.85
        )


def _is_ratio(view: View, place: Place) -> bool:
    """Whether it is the ratio of a policy's probabilities to themselves: all ones, out of an exponential."""
    history = view.history(place.node, role=place.role)
    is_one = len(history) > 0 and bool(history.of("min")[-1] == history.of("max")[-1] == 1)
    return is_one and view.flow.vertices[place].operation == "exp"


def _is_bias_alone(view: View, place: Place) -> bool:
    """Whether a normalisation gives its bias, and nothing else, in the first step."""
    output, weight, bias = (view.history(f"{place.node}{end}") for end in ("", ".weight", ".bias"))
    if not len(output) or _variation(view.training[:1], place) == np.inf:
        return False
    if not len(weight) or not len(bias):
        return not len(weight) and _is_over_one(view, place) and bool(rms(output)[0] == 0)
    return abs(float(rms(output)[0]) - float(rms(bias)[0])) < 0.01 * float(rms(weight)[0])


def _is_over_one(view: View, place: Place) -> bool:
    """Whether shapes tell that each number is normalised by itself, if nothing but the bias is left."""
    shape, weight = (view.shape(p, view.training[0]) for p in (place, Place(f"{place.node}.weight", "parameter")))
    if view.flow.vertices[place].operation == "layer_norm":
        return math.prod(weight or shape[-1:]) == 1 if shape else False
    return shape is not None and len(shape) > 1 and math.prod(shape[2:]) == 1


def _fading(view: View, late: list[Step], most: float) -> Iterator[tuple[Comparison, float, float]]:
    """Predictions whose spread is a small part of their targets', and at most half of what it was, with both parts."""
    early = view.training[:3]
    for comparison in comparisons(view):
        if comparison.operation == "mse_loss" and _is_all_that_counts(view, comparison):
            assert comparison.target is not None
            before, share = (_against(steps, comparison.prediction, comparison.target) for steps in (early, late[-3:]))
            if share < most and share < 0.5 * before < np.inf:
                yield comparison, share, before


def _is_all_that_counts(view: View, comparison: Comparison) -> bool:
    """Whether nothing is asked for but to come near targets from outside.

    What a value net foretells varies less and less, and rightly so, as the policy beside it becomes better.
    """
    target = comparison.target
    if target is None or view.flow.vertices[target].type == "calculated":
        return False
    sources = [link for loss in view.objectives for link in view.flow.sources.get(loss, ()) if link.differentiable]
    others = {link.place for link in sources if view.flow.vertices[link.place].type == "calculated"}
    return others <= {comparison.prediction}


def _against(steps: list[Step], prediction: Place, target: Place) -> float:
    """The spread of a prediction over the batch as a part of its target's; infinite if it is unknown."""
    spreads = [[_spread(step, place) for place in (prediction, target)] for step in steps]
    shares = [one / two for one, two in spreads if two > 0]
    return float(np.median(shares)) if shares else np.inf


def _spread(step: Step, place: Place) -> float:
    """The root mean square, over neurons, of the spread over the batch; 0 if it is unknown."""
    kept = neurons_of(step, place)
    return 0.0 if kept is None or kept.statistics is None else float(np.sqrt(np.mean(kept.statistics[_STD] ** 2)))


def _variation(steps: list[Step], place: Place) -> float:
    """The largest spread over the batch, relative to the values' size, of some steps; infinite if it is unknown."""
    largest = 0.0
    for step in steps:
        tensor, kept = tensor_of(step, place), neurons_of(step, place)
        if (
            tensor is None
            or kept is None
            or kept.statistics is None
            or not tensor.shape
            or tensor.shape[tensor.info.batch_dim or 0] < 2
        ):
            return np.inf
        size = float(np.sqrt(np.mean(kept.statistics[_MEAN] ** 2 + kept.statistics[_STD] ** 2)))
        spread = float(np.sqrt(np.mean(kept.statistics[_STD] ** 2)))
        largest = max(largest, spread / size if size > 0 else 0.0)
    return largest
