"""The rule ``imbalanced-targets``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from stepscope.analysis.baseline import count_classes
from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.history import Values
from stepscope.analysis.lines import sites_of
from stepscope.analysis.loss_inputs import MADE, OF_CLASSES, Comparison, comparisons, is_floating
from stepscope.analysis.neurons import neurons_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_MOST_STEPS = 100
_MOST_OF_ALL = 0.75
_WEIGHTS = ("class weight", "positive weight")
"""What the recorder calls the weights that a loss is given."""
_LOSSES = ("cross_entropy", "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits")


@dataclass(frozen=True)
class ImbalancedTargets(Rule):
    """Almost all targets are of one class.

    Symptom: high accuracy and a low loss from early on, by an answer that is always the same.

    How it is measured: for yes-or-no targets their mean over all elements of the steps; for classes the most frequent
    one among the kept samples of the steps, or class 0, whose share of all elements is known. Of many classes one may
    have three quarters of all samples and tower above each of the others, if the loss has no weights. It is a fact
    about the data, and often known: so it is worth knowing only.

    Besides, the weights of the classes that a loss was given are compared with how frequent the classes are: to give
    the rarer one the smaller weight is to turn the balance upside down. A class that ``ignore_index`` leaves out of
    whole samples, and outputs that no target asks for, are told as well.

    Causes: rare events, a filter that dropped the other classes, a loader that draws from one part of the data, padding
    that counts as a class.

    Remedy: weights in the loss (``weight``, ``pos_weight``), a sampler that balances classes, ``ignore_index`` for
    padding; measure recall, not accuracy.

    Attributes:
        ratio: the most frequent class against all others. Source: SageMaker's ClassImbalance, 10.
        alone: the most frequent of many classes against the others' mean. Source: of ours; long tails that are studied
            on purpose begin at 10.
        few, rare: of no more classes than these, one with a smaller part of the targets than ``rare`` is told that has
            ``ratio`` times fewer than the next. Source: of ours; in texts, where there are more classes, letters and
            words have a long tail by nature.
        least: fewer kept targets are not judged.
        asked: the part of a net's classes that targets reach, below which the others count as never asked for.
        weighs: how many times the class of the largest weight must outweigh that of the smallest one, and be more
            frequent. Source: of ours; weights that follow rounding differ by less.
        common, counts: how frequent a class is that should have a say, and the part of that share which its weight must
            leave it in the loss. Source: of ours; the inverse of how frequent it is would leave it one class's share.
    """

    name = "imbalanced-targets"
    causes = "Rare events, a filter that dropped classes, a loader that draws from one part of the data, or padding."
    remedy = (
        "Weight the loss (weight, pos_weight) or balance the sampling; if it is padding, give the loss ignore_index; "
        "measure recall instead of accuracy."
    )
    ratio: float = 10.0
    alone: float = 30.0
    few: int = 20
    rare: float = 0.02
    least: int = 100
    asked: float = 0.5
    weighs: float = 1.5
    common: float = 0.1
    counts: float = 0.01

    def check(self, view: View) -> Iterable[Finding]:
        seen: set[Place] = set()
        for comparison in comparisons(view):
            target = comparison.target
            if target is None or target in seen or comparison.operation not in _LOSSES:
                continue
            seen.add(target)
            yield from self._upside_down(view, comparison, target)
            yield from self._weighed_away(view, comparison, target)
            yield from self._never_asked_for(view, comparison, target)
            yield from self._left_out(view, comparison, target)
            is_binary = comparison.operation.startswith("binary")
            share, common = _binary(view, target) if is_binary else _classes(view, target, self.least)
            if self.ratio / (1 + self.ratio) < share < 1 or self._is_alone(view, comparison, share):
                yield self._finding(view, target, share, common)
            elif comparison.operation in OF_CLASSES:
                yield from self._rare(view, comparison, target)

    def _is_alone(self, view: View, comparison: Comparison, share: float) -> bool:
        """Whether one of many classes of whole samples towers above each other one, and no weights make up for it."""
        weighed = any(link.place.node in _WEIGHTS for link in view.flow.sources.get(comparison.loss, ()))
        if weighed or comparison.target is None or not _MOST_OF_ALL < share < 1 or not _of_samples(view, comparison):
            return False
        if not all(is_floating(view, place) for place in view.flow.of_type("input")):
            return False  # tokens, of which padding may be the most
        others = len(set(_kept(view, comparison.target))) - 1
        return others > 1 and comparison.operation in OF_CLASSES and share * others > self.alone * (1 - share)

    def _rare(self, view: View, comparison: Comparison, target: Place) -> Iterable[Finding]:
        """Some of a few classes that are far rarer than all others: no long tail, but a gap."""
        counts = Counter(_kept(view, target))
        weighed = any(link.place.node in _WEIGHTS for link in view.flow.sources.get(comparison.loss, ()))
        if weighed or not 2 < len(counts) <= self.few or sum(counts.values()) < 10 * self.least:
            return
        ordered = sorted(counts.items(), key=lambda entry: entry[1])
        total = sum(counts.values())
        gaps = [after / before for (_, before), (_, after) in pairwise(ordered)]
        place = int(np.argmax(gaps))
        if gaps[place] < self.ratio or place + 1 > len(ordered) // 2 or ordered[place][1] > self.rare * total:
            return
        rare = ", ".join(f"{number:g}" for number, _ in sorted(ordered[: place + 1]))
        most, others = ordered[place][1] / total, ordered[place + 1][1] / total
        summary = (
            f"Of the classes in {target.node}, {rare} {'is' if place == 0 else 'are'} rare: {most:.2%} of all at most, "
            f"where each other one has {others:.1%} or more. The classes are out of balance (imbalanced), and the loss "
            f"does not weigh them."
        )
        shown = [evidence(view.history(target.node, role=target.role), "mean", "the mean of the targets")]
        yield self.finding(view, target.node, "info", summary, shown, confidence=0.7)

    def _never_asked_for(self, view: View, comparison: Comparison, target: Place) -> Iterable[Finding]:
        """Scores of classes that never occur: a net with more outputs than there are classes."""
        if comparison.operation not in OF_CLASSES or len(comparison.shape) < 2:
            return
        if comparison.shape == comparison.target_shape:
            return  # a number for each class, not a class
        if view.flow.vertices[target].operation in MADE:
            return  # the place of what belongs together, in a contrastive loss
        classes = count_classes(comparison.shape, comparison.target_shape)
        largest = float(np.max(view.history(target.node, role=target.role).of("max")))
        if 0 <= largest < self.asked * classes - 1 and classes > 2:
            summary = (
                f"{comparison.prediction.node} scores {classes} classes, but {target.node} asks for no more than the "
                f"first {largest + 1:g}: the others never occur."
            )
            yield self.finding(
                view, target.node, "info", summary, [evidence(view.history(target.node), "max", "the largest class")],
                step=view.began, nodes=[comparison.prediction.node], confidence=0.7,
                causes="The number of outputs of another data set, or data from a part of the classes.",
                remedy="Give the last layer one output for each class.",
            )  # fmt: skip

    def _left_out(self, view: View, comparison: Comparison, target: Place) -> Iterable[Finding]:
        """A class of whole samples that ``ignore_index`` takes for padding."""
        sites = [site for site in sites_of(view, "ignores") if comparison.loss in site.after]
        if not sites or not _of_samples(view, comparison):
            return  # padding of sequences
        ignored = float(sites[0].operation.partition("ignore_index=")[2].rstrip(")"))
        kept = list(_kept(view, target))
        share = kept.count(ignored) / max(len(kept), 1)
        if share > 0 and len(kept) >= self.least:
            summary = (
                f"The loss leaves out class {ignored:g}, which {share:.0%} of the samples have (ignore_index): it is "
                f"taken for padding, and never learned."
            )
            yield self.finding(
                view, target.node, "warning", summary, step=view.began, nodes=[comparison.loss.node],
                confidence=0.8, source=sites[0].source, causes="An ignore_index that is the number of a class.",
                remedy="Leave ignore_index out, or give what is to be ignored a number that no class has (-100).",
            )  # fmt: skip

    def _weighed_away(self, view: View, comparison: Comparison, target: Place) -> Iterable[Finding]:
        """A class that is frequent, and has next to no weight."""
        place, weights = _class_weights(view, comparison)
        counts = Counter(_kept(view, target))
        total = sum(counts.values())
        if place is None or total < self.least or place.node != _WEIGHTS[0]:
            return
        parts = np.array([counts.get(float(number), 0) * weight for number, weight in enumerate(weights)])
        shares = parts / max(float(parts.sum()), 1e-30)
        for number in np.flatnonzero(weights > 0):
            frequent = counts.get(float(number), 0) / total
            if frequent > self.common and shares[number] < self.counts * frequent:
                summary = (
                    f"Class {number} is {frequent:.0%} of the targets, and its class weight of {weights[number]:.2g} "
                    f"leaves it {shares[number]:.1g} of the loss: it (the background?) is hardly learned."
                )
                yield self.finding(
                    view, target.node, "warning", summary,
                    [evidence(view.history(place.node), "min", "the smallest weight")], step=view.began,
                    nodes=[comparison.loss.node, place.node], confidence=0.8,
                    source=view.flow.vertices[comparison.loss].source,
                    causes="A weight for the background taken over from another loss, or one zero too many.",
                    remedy="Weigh a class by the inverse of how frequent it is, not by less.",
                )  # fmt: skip
                return

    def _upside_down(self, view: View, comparison: Comparison, target: Place) -> Iterable[Finding]:
        """Weights that are larger for the class that is more frequent anyway."""
        place, weights = _class_weights(view, comparison)
        counts = Counter(_kept(view, target))
        if place is None:
            return
        if place.node == _WEIGHTS[1]:  # what weighs yes, where no weighs 1
            weights = np.array([1.0, weights[0]]) if len(weights) == 1 else np.empty(0)
        frequent = np.array([counts.get(float(number), 0) for number in range(len(weights))], np.float64)
        known = (frequent > 0) & (weights > 0)
        if sum(counts.values()) < self.least or known.sum() < 2:
            return
        classes = np.flatnonzero(known)
        heavy, light = classes[np.argmax(weights[known])], classes[np.argmin(weights[known])]
        agree = np.corrcoef(np.log(weights[known]), np.log(frequent[known]))[0, 1]
        ratios = weights[heavy] / weights[light], frequent[heavy] / frequent[light]
        if min(ratios) < self.weighs or not agree > 0.5:
            return
        summary = (
            f"The class weights are upside down: class {heavy} has {ratios[0]:.2g} times the weight of class {light}, "
            f"although it is {ratios[1]:.2g} times as frequent already: the rare class does not count."
        )
        yield self.finding(
            view, target.node, "warning", summary, [evidence(view.history(place.node), "max", "the largest weight")],
            step=view.began, nodes=[comparison.loss.node, place.node], confidence=0.85,
            causes="Weights made from the classes' counts, not from their inverse.",
            remedy="Weigh each class by the inverse of how frequent it is (pos_weight: no over yes).",
            source=view.flow.vertices[comparison.loss].source,
        )  # fmt: skip

    def _finding(self, view: View, target: Place, share: float, common: float) -> Finding:
        history = view.history(target.node, role=target.role)
        summary = (
            f"{share:.1%} of the targets {target.node} are {common:g}: the classes are out of balance (imbalanced)."
        )
        shown = [evidence(history, "mean", "the mean of the targets")]
        return self.finding(view, target.node, "info", summary, shown, confidence=0.8)


def _class_weights(view: View, comparison: Comparison) -> tuple[Place | None, Values]:
    """The weights of the classes that a loss was given; None if there are none, or not all were kept."""
    behind = [link.place for link in view.flow.sources.get(comparison.loss, ())]
    place = next((place for place in behind if place.node in _WEIGHTS), None)
    kept = None if place is None else neurons_of(view.training[-1], place)
    if kept is None or kept.samples.shape[-1] != kept.total:
        return None, np.empty(0)
    return place, kept.samples.ravel().astype(np.float64)


def _of_samples(view: View, comparison: Comparison) -> bool:
    """Whether there is one target for each sample of an input: not for each token of a text."""
    inputs = {(view.shape(place, view.training[-1]) or (0,))[0] for place in view.flow.of_type("input")}
    return len(comparison.target_shape) == 1 and comparison.target_shape[0] in inputs


def _binary(view: View, target: Place) -> tuple[float, float]:
    """The share of the more frequent of two answers, and which it is; 0 if targets lie between 0 and 1."""
    history = view.history(target.node, role=target.role)
    means = history.of("mean")
    # For numbers that are 0 or 1 the mean of the squares is the mean.
    if not len(means) or not np.allclose(history.of("std") ** 2, means * (1 - means), atol=1e-4):
        return 0.0, 0.0
    share = float(np.mean(means))
    return (share, 1.0) if share > 0.5 else (1 - share, 0.0)


def _classes(view: View, target: Place, least: int) -> tuple[float, float]:
    """The share of the most frequent class, and which it is; 0 if too few are known."""
    zeros = view.history(target.node, role=target.role).of("zero_fraction")
    elements = math.prod(view.shape(target, view.training[-1]) or ()) * len(zeros)
    padding = float(np.mean(zeros)) if elements >= least else 0.0
    counts = Counter(_kept(view, target))
    if sum(counts.values()) < least:
        return padding, 0.0
    ((common, count),) = counts.most_common(1)
    return max((padding, 0.0), (count / sum(counts.values()), common))


def _kept(view: View, target: Place) -> Iterator[float]:
    steps = view.training[:: max(1, len(view.training) // _MOST_STEPS)]
    for step in steps:
        kept = neurons_of(step, target)
        if kept is not None and kept.samples is not None:
            yield from kept.samples.ravel().tolist()
