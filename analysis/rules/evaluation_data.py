"""The rule ``evaluation-data``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.history import History
from stepscope.analysis.loss_inputs import OF_CLASSES, comparisons, is_floating
from stepscope.analysis.robust import median
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store import Step

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class EvaluationData(Rule):
    """Steps that only evaluate get inputs, or targets, of another scale than the training's, or other classes.

    Symptom: the training goes well, and what it learned is of no use in validation, from the first epoch on; or the
    loss there is of another size, and hardly moves.

    How it is measured: mean and standard deviation of an input, or of a target that is not computed by a net, in the
    median of the steps of a kind that only evaluates, are compared with those of the training; of inputs the share of
    zeros, too. Of the numbers of classes the least and the largest: if all of an evaluation's lie beyond those of the
    training, but for one, within which the data may have been cut in two, they were sorted when they were split.

    Causes: one of the two is not normalised, or with other numbers; a split of data that are sorted by class; scaled
    predictions that are compared with raw targets; an augmentation that hides nearly all; training data that cover a
    small part of what the others do.

    Remedy: prepare both with the same function, but for the augmentation; look at a sample of each.

    Source: RT-DETR issue 312 and fastai issue 3281, validations that were not normalised.

    Attributes:
        shift, stretch: how many standard deviations (within the batches, or of their means, if that is more) the mean
            may lie beside that of the training, and how many times its standard deviation may be another one. Source:
            of ours; samples of the same data differ by a small part of one.
        masked: the part of an input that is zero in training and not in evaluation. Source: of ours; masked
            autoencoders hide more, but see the whole only as a target.
    """

    name = "evaluation-data"
    causes = "The training data are normalised and the others are not, or with other numbers."
    remedy = "Give both kinds of steps the same normalisation, with the numbers of the training data."
    shift: float = 3.0
    stretch: float = 5.0
    masked: float = 0.5

    def check(self, view: View) -> Iterable[Finding]:
        for place in view.all_flow.of_type("input", "target"):
            yield from self._of(view, place)
        labels = {one.target for one in comparisons(view) if one.operation in OF_CLASSES}
        for target in (target for target in labels if target is not None and not is_floating(view, target)):
            yield from self._of_classes(view, target)

    def _of_classes(self, view: View, target: Place) -> Iterable[Finding]:
        """Evaluations of nothing but classes that the training does not have."""
        trained = view.history(target.node, role=target.role)
        every = view.history(target.node, role=target.role, training=False)
        known = float(np.min(trained.of("min"))), float(np.max(trained.of("max")))
        for kind, mine in _evaluations(view, every) if known[1] - known[0] >= 2 else ():
            asked = float(np.min(every.of("min")[mine])), float(np.max(every.of("max")[mine]))
            if asked[1] > asked[0] and (asked[0] >= known[1] or asked[1] <= known[0]):
                shared = [f"{one:g}" for one in asked if one in known]
                summary = (
                    f"The classes of {kind}{f' (but for {shared[0]})' if shared else ''} are never seen in training: "
                    f"{target.node} goes from {asked[0]:g} to {asked[1]:g} there, and from {known[0]:g} to "
                    f"{known[1]:g} in training. The data were sorted, and not shuffled, when they were split."
                )
                shown = [evidence(every, "max", "the largest class"), evidence(every, "min", "the least")]
                yield self.finding(
                    view, target.node, "warning", summary, shown, step=int(every.steps[mine][0]), confidence=0.9,
                    causes="The last part of data that are sorted by class, kept for the evaluation.",
                    remedy="Shuffle the data before they are split, or split them class by class (stratified).",
                )  # fmt: skip

    def _of(self, view: View, place: Place) -> Iterable[Finding]:
        trained, every = (
            view.history(place.node, role=place.role),
            view.history(place.node, role=place.role, training=False),
        )
        is_target = view.all_flow.vertices[place].type == "target"
        if not len(trained) or not is_floating(view, place) or (is_target and _is_yes_or_no(every)):
            return
        for kind, mine in _evaluations(view, every):
            if is_target and not _is_one_thing(view, place, kind):
                continue
            if not is_target and (hidden := self._holes(trained, every, mine)) is not None:
                yield self._masked(view, place, kind, every, *hidden)
            elif self._is_other(trained, every, mine):
                yield self._other(view, place, kind, trained, every, mine)

    def _is_other(self, trained: History, every: History, mine: Mask) -> bool:
        spread, other = median(trained.of("std")), median(every.of("std")[mine])
        moved = abs(median(every.of("mean")[mine]) - median(trained.of("mean")))
        around = max(spread, float(trained.of("mean").std()))  # batches of few samples differ among themselves
        return spread > 0 and (moved > self.shift * around or not 1 / self.stretch < other / spread < self.stretch)

    def _other(self, view: View, place: Place, kind: str, trained: History, every: History, mine: Mask) -> Finding:
        means = median(trained.of("mean")), median(every.of("mean")[mine])
        stds = median(trained.of("std")), median(every.of("std")[mine])
        summary = (
            f"{place.node} is not normalised (scaled) alike: in training its mean is {means[0]:.3g} and its std "
            f"{stds[0]:.3g}, in {kind} they are {means[1]:.3g} and {stds[1]:.3g}"
            f"{'; or the training data cover a part of these only' if stds[0] < stds[1] else ''}."
        )
        shown = [evidence(every, "mean", "in all steps"), evidence(trained, "mean", "in training")]
        return self.finding(
            view, place.node, "warning", summary, shown, step=int(every.steps[mine][0]), confidence=0.85,
        )  # fmt: skip

    def _holes(self, trained: History, every: History, mine: Mask) -> tuple[float, float] | None:
        """The part of an input that is zero in training, and where the net is evaluated, if they are far apart."""
        zero, other = median(trained.of("zero_fraction")), median(every.of("zero_fraction")[mine])
        return (zero, other) if zero - other > self.masked else None

    def _masked(self, view: View, place: Place, kind: str, every: History, zero: float, other: float) -> Finding:
        summary = (
            f"{zero:.0%} of {place.node} are zero in training, and {other:.0%} in {kind}: an augmentation masks nearly "
            f"all of it."
        )
        return self.finding(
            view, place.node, "warning", summary, [evidence(every, "zero_fraction", "in all steps")],
            step=view.began, confidence=0.8,
            causes="Masks, crops or a dropout of the input that are too large, or come on top of each other.",
            remedy="Look at some inputs as the model gets them, and hide less of them.",
        )  # fmt: skip


def _evaluations(view: View, every: History) -> Iterator[tuple[str, Mask]]:
    """Each kind of steps that only evaluates, and which points of a history of all steps are of it, if any are."""
    kinds = {step.number: step.kind for step in view.steps if step.kind not in view.training_kinds}
    for kind in dict.fromkeys(kinds.values()):
        mine = np.array([kinds.get(number) == kind for number in every.steps.tolist()], bool)
        if mine.any():
            yield kind, mine


def _is_yes_or_no(history: History) -> bool:
    """Whether it is a share, of whose mean the other data may rightly have another one (balanced, or as it comes)."""
    return bool(np.all((history.of("min") >= 0) & (history.of("max") <= 1)))


def _is_one_thing(view: View, place: Place, kind: str) -> bool:
    """Whether a sample has the same shape in training and in a kind of steps, and ``target 3``, say, is made alike.

    Targets are numbered as they come, and a step of another kind may compute others in between.
    """
    other = next(step for step in view.steps if step.kind == kind and view.shape(place, step) is not None)
    shapes = view.shape(place, view.training[-1]), view.shape(place, other)
    is_numbered = place.node.rpartition(" ")[2].isdecimal()
    is_alike = not is_numbered or _made_by(view.training[-1], place) == _made_by(other, place)
    return is_alike and all(shape is not None for shape in shapes) and len({(shape or ())[1:] for shape in shapes}) == 1


def _made_by(step: Step, place: Place) -> set[str]:
    """The operations that make a place in a step."""
    vertices = (vertex for number in step.iterations for vertex in step.graph(number).vertices)
    return {vertex.operation for vertex in vertices if (vertex.node, vertex.role) == (place.node, place.role)}
