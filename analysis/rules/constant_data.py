"""The rule ``constant-data``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.flow import Place
from stepscope.analysis.lines import sites_of
from stepscope.analysis.loss_inputs import MADE, Comparison, comparisons, is_floating
from stepscope.analysis.moving import is_computed_and_drifts
from stepscope.analysis.neurons import neurons_of, tensor_of
from stepscope.analysis.robust import median
from stepscope.analysis.rule import Rule
from stepscope.analysis.spread import neuron_moments, share_between
from stepscope.analysis.view import View, evidence
from stepscope.store.records import NEURON_STATISTICS

_STD = NEURON_STATISTICS.index("std")
_MOST_STEPS = 60
_FEWEST = 16
_LEAST = 3
_JOINING = frozenset(["cat", "stack", "float", "to"])
_ELEMENTWISE = frozenset(
    ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits"]
)


@dataclass(frozen=True)
class ConstantData(Rule):
    """All samples of every batch have the same input, or (almost) the same target; or most of an input never varies.

    Symptom: the loss falls to zero at once, or settles at once; nothing that is learned is of use.

    How it is measured: in up to five training steps over the whole run, every neuron of the input (or the target) has
    the same value for all samples of its batch. Trials with several losses are left out for targets: a GAN's real
    samples all have the target 1. Or: most of the targets' variance lies between the batches and not within them, as if
    they were sorted; of shuffled ones it is one over the batch's size. Or most numbers of an input never vary, or most
    samples are all zeros: there are fewer other numbers than samples. Targets that were expanded from one for the whole
    batch are worth knowing only.

    Causes: a loader that returns one sample again and again, data sorted by class, labels that were overwritten,
    ``expand`` where a stack was meant.

    Remedy: look at a batch of data; shuffle it; check the indices of the data set.

    Constants that the step makes itself (``torch.zeros``, and what it computes of them) are meant, labels of a GAN say;
    but not zeros in the place of data: several for each sample, against which a net's own output is held, by the only
    loss that trains what made it.

    Attributes:
        between: the part of the targets' variance between batches that counts as sorted. Source: half is eight times
            what batches of 16 have by chance; text, whose batches are of one kind, has less than a fifth.
        smallest: batches of fewer samples are not judged by it.
        blank: the part of an input's numbers that never vary. Source: the border of handwritten digits is a half.
        empty: the part of the samples that are all zeros. Source: of ours; more than half say nothing.
    """

    name = "constant-data"
    causes = "A loader that returns one sample again and again, data sorted by class, or labels that were overwritten."
    remedy = "Look at a few batches by hand; shuffle the data; check the indices of the data set."
    between: float = 0.5
    smallest: int = 8
    blank: float = 0.8
    empty: float = 0.5

    def check(self, view: View) -> Iterable[Finding]:
        if not view.training:
            return
        inputs = view.flow.of_type("input")
        targets = view.flow.of_type("target") if len(view.objectives) == 1 else []
        used = view.flow.upstream(view.losses)
        for places, is_meant in ((inputs, _is_called_for), (targets if len(targets) == 1 else [], _is_made)):
            places = [place for place in places if not is_meant(view, place)]
            found = [place for place in places if place in used and _is_constant(view, place)]
            varying = [place for place in places if place not in found]
            if found and not varying:
                yield self._finding(view, found[0])
                return
        yield from self._towards_zeros(view)
        yield from self._in_place_of_targets(view)
        yield from self._sorted(view, [place for place in targets if place in used])
        yield from self._blank(view, [place for place in inputs if place in used])
        yield from self._empty(view, [place for place in inputs if place in used])

    def _towards_zeros(self, view: View) -> Iterable[Finding]:
        """Zeros in the place of data, with which a loss compares what a net gives."""
        marked = {place for site in sites_of(view, "against zeros") for place in site.after}
        for comparison in comparisons(view):
            loss, target = comparison.loss, comparison.target
            if loss not in view.objectives or not (loss in marked or _are_zeros(view, comparison)):
                continue
            made = _output(view, comparison.prediction)
            if made is not None and _trains_alone(view, loss, made):
                known = [] if target is None else [target.node]
                summary = (
                    f"All targets of {loss.node} are zeros in every step ({', '.join(known) or 'made in the step'}), "
                    f"where {made.node} gives {math.prod(comparison.shape[1:])} numbers a sample: a constant target, "
                    f"and nothing else trains {made.node}."
                )
                history = view.history(comparison.prediction.node, role=comparison.prediction.role)
                yield self.finding(
                    view, loss.node, "warning", summary, [evidence(history, "abs_mean", "pulled towards zero")],
                    step=view.began, nodes=[made.node, *known], confidence=0.85,
                    source=view.flow.vertices[loss].source,
                    causes="Targets that were made as zeros and never set, or the wrong net's output in the loss.",
                    remedy="Compare with the data, or give the loss the other net's answer and its labels.",
                )  # fmt: skip

    def _in_place_of_targets(self, view: View) -> Iterable[Finding]:
        """Zeros that the step makes in the shape of its targets, and gives to the net beside the data."""
        used = view.flow.upstream(view.losses)
        for place in view.flow.of_type("input"):
            behind = [link.place for link in view.flow.sources.get(place, ())]
            is_like = bool(behind) and all(view.flow.vertices[one].type == "target" for one in behind)
            history = view.history(place.node, role=place.role)
            if not is_like or place not in used or not is_floating(view, place) or not history.is_constant:
                continue
            shape = view.shape(place, view.training[-1]) or ()
            if view.flow.vertices[place].operation == "zeros_like" and len(shape) > 2:
                summary = (
                    f"{place.node} {shape} is always zeros, made in the shape of {behind[0].node}: the net is told "
                    f"nothing by it. A decoder would get what it has said so far there."
                )
                yield self.finding(
                    view, place.node, "info", summary, [evidence(history, "abs_max", "always zeros")],
                    step=view.began, nodes=[behind[0].node], confidence=0.6,
                    causes="A placeholder in the place of the targets that are shifted by one.",
                    remedy="Give a decoder its targets, one moment late; learned queries need no zeros.",
                )  # fmt: skip

    def _sorted(self, view: View, targets: list[Place]) -> Iterable[Finding]:
        """Targets that are alike within a batch and differ between batches."""
        if len(targets) != 1 or _is_made(view, targets[0]) or is_computed_and_drifts(view, targets[0]):
            return
        target = targets[0]
        samples = (view.shape(target, view.training[-1]) or (0,))[0]
        steps = view.training[:: max(1, len(view.training) // _MOST_STEPS)]
        share = share_between(steps, target) if samples >= self.smallest else 0.0
        if share > self.between:
            history = view.history(target.node, role=target.role)
            summary = (
                f"The data seems to be sorted by its targets and not shuffled: a batch has hardly more than the same "
                f"class (or value) of {target.node}; {share:.0%} of its variance lies between batches."
            )
            shown = [evidence(history, "mean", "the batches' means"), evidence(history, "std", "their spread")]
            yield self.finding(
                view, target.node, "warning", summary, shown, step=int(history.steps[0]), confidence=0.8,
                causes="shuffle=False on data that is sorted by class, or a sampler that draws one class at a time.",
                remedy="Shuffle the data: DataLoader(..., shuffle=True).",
            )  # fmt: skip

    def _blank(self, view: View, inputs: list[Place]) -> Iterable[Finding]:
        """Inputs most of whose numbers are the same in all samples of all batches."""
        for place in (place for place in inputs if is_floating(view, place)):
            share = _never_varying(view, place)
            if share >= self.blank:
                history = view.history(place.node, role=place.role)
                summary = (
                    f"Almost all of the input are constant numbers: {share:.0%} of {place.node} never vary, neither "
                    f"within batches nor between them, as if erased or masked."
                )
                yield self.finding(
                    view, place.node, "info", summary, [evidence(history, "std", "its spread over all elements")],
                    step=int(history.steps[0]), confidence=0.7,
                    causes="An augmentation that erases or crops too much, a mask the wrong way round, empty columns.",
                    remedy="Look at some inputs as the model gets them; leave out what never varies.",
                )  # fmt: skip

    def _empty(self, view: View, inputs: list[Place]) -> Iterable[Finding]:
        """Inputs of which most samples are nothing but zeros."""
        for place in (place for place in inputs if is_floating(view, place)):
            share = _empty_samples(view, place)
            if self.empty <= share < 1:
                history = view.history(place.node, role=place.role)
                summary = (
                    f"Most samples are all zeros: at least {share:.0%} of those of {place.node} (in the median of the "
                    f"steps) have no other number, so that nothing tells them apart."
                )
                yield self.finding(
                    view, place.node, "warning", summary, [evidence(history, "zero_fraction", "its zeros")],
                    step=int(history.steps[0]), confidence=0.8,
                    causes="Fractions that were rounded or cast to whole numbers, columns that were not filled in.",
                    remedy="Look at some inputs as the model gets them, and at the dtype in which they are kept.",
                )  # fmt: skip

    def _finding(self, view: View, place: Place) -> Finding:
        history = view.history(place.node, role=place.role)
        kind = "target" if view.flow.vertices[place].type == "target" else "input"
        summary = f"All samples of a batch have the same {kind}: {place.node} does not vary in any batch looked at."
        level: Level = "warning"
        if np.ptp(history.of("mean")) > 0:
            if _is_expanded(view, place):
                summary += (
                    " Each batch has one for all its samples, which were expanded from it: fine, if that is meant."
                )
                level = "info"
            else:
                summary += " Between batches it does: the data seems to be sorted by it, and not shuffled."
        shown = [evidence(history, "std", "its spread over all elements")]
        return self.finding(view, place.node, level, summary, shown, step=int(history.steps[0]), confidence=0.9)


def _is_called_for(view: View, place: Place) -> bool:
    """Whether the step makes it by a call for constants."""
    return view.flow.vertices[place].operation in MADE


def _is_made(view: View, place: Place) -> bool:
    """Whether the step makes it itself: by a call for constants, or of them, when all of its elements are the same."""
    operation = view.flow.vertices[place].operation
    if operation in MADE or not operation:
        return operation in MADE
    if operation in _JOINING and not _varies_over_samples(view, place):
        return True  # a one for what is right, zeros for what is not, in the same order for each sample
    return bool(np.all(view.history(place.node, role=place.role).of("std") == 0))


def _varies_over_samples(view: View, place: Place) -> bool:
    """Whether any number of it differs between samples, in the first training steps; True if that is not known."""
    moments = [neuron_moments(step, place) for step in view.training[:_LEAST]]
    return any(found is None or bool(np.any(found[1] > 0)) for found in moments)


def _are_zeros(view: View, comparison: Comparison) -> bool:
    """Whether there are several targets for each sample, and all are zero in all steps."""
    if comparison.target is None or comparison.operation not in _ELEMENTWISE:
        return False
    history = view.history(comparison.target.node, role=comparison.target.role)
    is_wide = comparison.target_shape == comparison.shape and math.prod(comparison.shape[1:]) > 1
    return is_wide and len(history) >= _LEAST and not np.any(history.of("abs_max"))


def _output(view: View, place: Place) -> Place | None:
    """The module's output that a prediction is, perhaps behind an activation."""
    while not view.flow.vertices[place].module:
        behind = [link.place for link in view.flow.sources.get(place, ())]
        if len(behind) != 1 or view.flow.vertices[behind[0]].type != "calculated":
            return None
        place = behind[0]
    return place


def _trains_alone(view: View, loss: Place, made: Place) -> bool:
    """Whether what made something gets its gradient from one loss only."""
    weights = {
        place
        for place in view.flow.upstream([made], differentiable=True)
        if view.flow.vertices[place].type == "parameter"
    }
    others = [other for other in view.losses if other != loss]
    return bool(weights) and weights.isdisjoint(view.flow.upstream(others, differentiable=True))


def _never_varying(view: View, place: Place) -> float:
    """The share of an input's numbers that are the same in all samples of ten steps; 0 if it cannot be judged."""
    found = [neuron_moments(step, place) for step in view.training[:: max(1, len(view.training) // 10)]]
    moments = [pair for pair in found if pair is not None]
    if len(moments) < 5 or len({len(mean) for mean, _ in moments}) > 1 or len(moments[0][0]) < _FEWEST:
        return 0.0
    means, spreads = np.array([mean for mean, _ in moments]), np.array([std for _, std in moments])
    still = (spreads <= 1e-6 * np.abs(means)).all(axis=0) & (np.ptp(means, axis=0) <= 1e-6 * np.abs(means[0]))
    return 0.0 if still.all() else float(still.mean())


def _is_expanded(view: View, place: Place) -> bool:
    """Whether it is one sample's memory, read again for each other: ``expand``."""
    tensor = tensor_of(view.training[-1], place)
    batch = None if tensor is None else tensor.info.batch_dim
    return tensor is not None and batch is not None and tensor.strides[batch : batch + 1] == (0,)


def _empty_samples(view: View, place: Place) -> float:
    """The least share of samples that are all zeros, as many as there are fewer other numbers than samples."""
    history, shape = view.history(place.node, role=place.role), view.shape(place, view.training[-1])
    if not shape or len(shape) < 2 or len(history) < _LEAST:
        return 0.0
    return 1 - (1 - median(history.of("zero_fraction"))) * math.prod(shape[1:])


def _is_constant(view: View, place: Place) -> bool:
    """Whether no neuron varies over the batch, in all of some steps spread over the run."""
    chosen = [view.training[index] for index in {*np.linspace(0, len(view.training) - 1, 5).astype(int).tolist()}]
    looked = 0
    for step in chosen:
        tensor, kept = tensor_of(step, place), neurons_of(step, place)
        if tensor is None:
            continue
        batch = tensor.info.batch_dim
        if batch is None or tensor.shape[batch] < 4 or kept is None or kept.statistics is None:
            return False
        if np.any(kept.statistics[_STD] != 0):
            return False
        looked += 1
    return looked >= 3
