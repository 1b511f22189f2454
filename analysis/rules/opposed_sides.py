"""The rule ``opposed-sides``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.curves import loss_curves
from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.history import Values
from stepscope.analysis.loss_inputs import Comparison, comparisons
from stepscope.analysis.neurons import neurons_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store import Step

_FEATURES, _LEAST, _MOST = 4, 60, 40


@dataclass(frozen=True)
class OpposedSides(Rule):
    """What should agree is driven apart: a prediction becomes the opposite of its targets, or two codes of one sample.

    Symptom: the loss falls nicely, and all that was learned is the wrong way round: the worst match comes first.

    How it is measured: of the samples that are kept, in the last third of the training. A prediction and its target of
    one number each have a correlation far below zero, while the only loss is below zero: it is a similarity that is
    made small (other losses are small where both agree; risks and times, which go against each other, have losses above
    zero). Or the only two representations of a loss without data are less alike (by their cosine) within a sample than
    between samples, by far, and more so than at first.

    Causes: a similarity where a distance was meant (in a triplet loss, say), a correlation that is minimised.

    Remedy: ``1 - similarity``; look at a few pairs.

    Attributes:
        against: the correlation. Source: sixty pairs without any relation go below that once in a thousand times.
        apart: the difference of the cosines, late, and how much of it came with the training. Source: of ours; codes of
            other samples are equally near on average.
    """

    name = "opposed-sides"
    about = "loss"
    causes = "A similarity, correlation or score is made small, where a distance was meant."
    remedy = "Minimise 1 - similarity (or its negative), and look at a few pairs."
    against: float = -0.4
    apart: float = -0.3

    def check(self, view: View) -> Iterable[Finding]:
        late = view.training[2 * len(view.training) // 3 :]
        if view.is_young or len(view.objectives) != 1 or len(late) < 3:
            return
        late = late[:: max(1, len(late) // _MOST)]
        known = list(comparisons(view))
        if len(known) == 1 and known[0].target is not None:
            yield from self._against(view, late, known[0], known[0].target)
        sides = _codes(view, known)
        if len(sides) == 2:
            yield from self._apart(view, late, sides[0], sides[1])

    def _against(self, view: View, late: list[Step], comparison: Comparison, target: Place) -> Iterable[Finding]:
        """A prediction that goes against its targets."""
        ends = [curve.end for curve in loss_curves(view)]
        pairs = [(_kept(step, comparison.prediction), _kept(step, target)) for step in late]
        known = [(one, two) for one, two in pairs if one is not None and two is not None]
        if not ends or min(ends) >= 0 or not known or not all(_are_numbers(one, two) for one, two in known):
            return
        x, y = (np.concatenate([pair[side] for pair in known]).ravel() for side in (0, 1))
        if len(x) < _LEAST or not (x.std() > 0 and y.std() > 0):
            return
        together = float(np.corrcoef(x, y)[0, 1])
        if together < self.against:
            node = comparison.prediction.node
            summary = (
                f"{node} becomes the opposite of {target.node} (their correlation is {together:.2f} at last), while "
                f"{comparison.loss.node} falls below zero: a similarity is made small (wrong sign?)."
            )
            yield self._at(view, comparison.loss, summary, [node, target.node])

    def _apart(self, view: View, late: list[Step], one: Place, two: Place) -> Iterable[Finding]:
        """Two codes of a sample that are less alike than those of different samples."""
        first = [_alikeness(step, one, two) for step in view.training[:3]]
        last = [_alikeness(step, one, two) for step in late]
        before, after = (float(np.median(values)) for values in (first, last))
        if after < self.apart and after - before < self.apart / 2:
            summary = (
                f"{one.node} and {two.node} are driven apart: the two of one sample are less alike than those of "
                f"different samples, by {-after:.2f} (cosine; {-before:.2f} at first): the loss has a similarity with "
                f"the wrong sign."
            )
            yield self._at(view, view.objectives[0], summary, list(dict.fromkeys([one.node, two.node])))

    def _at(self, view: View, loss: Place, summary: str, nodes: list[str]) -> Finding:
        history = view.history(loss.node, role=loss.role)
        return self.finding(
            view, loss.node, "warning", summary, [evidence(history, "mean", "falls")], confidence=0.85,
            step=view.began, nodes=[node for node in nodes if node != loss.node],
        )  # fmt: skip


def _are_numbers(one: Values, two: Values) -> bool:
    return one.shape == two.shape and one.shape[1] == 1


def _codes(view: View, known: list[Comparison]) -> list[Place]:
    """What a loss without data compares, or the similarities of all pairs are made of: representations of one shape."""
    sides = list(dict.fromkeys(one.prediction for one in known))
    if len(known) == 1 and known[0].target is not None:
        is_of_pairs = view.flow.vertices[known[0].target].operation == "arange" and len(set(known[0].shape)) == 1
        links = view.flow.sources.get(sides[0], ()) if is_of_pairs else ()
        sides = [link.place for link in links if link.differentiable]
    elif any(one.target is not None for one in known):
        return []
    shapes = {view.shape(place, view.training[-1]) for place in sides}
    is_codes = len(shapes) == 1 and all(
        shape is not None and len(shape) == 2 and shape[1] >= _FEATURES for shape in shapes
    )
    return sides if is_codes else []


def _kept(step: Step, place: Place) -> Values | None:
    """``(samples, features)``."""
    neurons = neurons_of(step, place)
    if neurons is None or len(neurons.samples) != len(step.samples) or not np.isfinite(neurons.samples).all():
        return None
    return neurons.samples.astype(np.float64).reshape(len(neurons.samples), -1)


def _alikeness(step: Step, one: Place, two: Place) -> float:
    """How much more alike two codes of a sample are than those of different samples; 0 if nothing is known."""
    first, second = _kept(step, one), _kept(step, two)
    if first is None or second is None or first.shape != second.shape or len(first) < 3:
        return 0.0
    norms = [np.linalg.norm(codes, axis=1, keepdims=True) for codes in (first, second)]
    cosines = (first / np.maximum(norms[0], 1e-12)) @ (second / np.maximum(norms[1], 1e-12)).T
    own = float(np.mean(np.diag(cosines)))
    return own - float((cosines.sum() - np.trace(cosines)) / (cosines.size - len(cosines)))
