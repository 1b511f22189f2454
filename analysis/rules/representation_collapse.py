"""The rule ``representation-collapse``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.history import Values
from stepscope.analysis.layers import rms
from stepscope.analysis.lines import line_of_loss
from stepscope.analysis.loss_inputs import comparisons
from stepscope.analysis.neurons import tensor_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.spread import direction_spread, relative_spread
from stepscope.analysis.units import late_steps
from stepscope.analysis.view import View, evidence
from stepscope.store import Step

_FEATURES, _LEAST = 4, 15
_LAST, _LOOKS = 3, 24
_NOTHING = 0.01
"""The part of its first size at which a representation is as good as zero."""
Spread = Callable[[Step, Place], float]


@dataclass(frozen=True)
class RepresentationCollapse(Rule):
    """A representation that is learned without targets becomes the same for all samples.

    Symptom: the loss falls to its minimum quickly and looks perfect; the features are of no use.

    How it is measured: tensors of several features that enter a loss which compares them with no data: the spread
    of each feature over the batch as a part of the values' size, in the last third of the training against the start;
    and the same of the kept samples' directions, as losses often compare cosines only.

    A fall that begins midway counts, too, if it goes on to the last steps.
    A training of fewer than 50 steps is not judged: features draw together at first, and part later.

    Or all of a tensor becomes as good as zero that enters such a term beside a loss with data: a penalty weighs too
    much.

    Or, of a training with one objective, their size as a whole: it falls to a small part of what it was, and goes on
    falling with the loss, as nothing but small numbers is asked for.

    Causes: nothing in the loss keeps samples apart: no negatives, no stop-gradient on one side, no predictor; too
    high a learning rate; normalisation that was taken out; a density without the logarithm of its stretch (the volume,
    or determinant, of a flow).

    Remedy: detach one branch and keep the predictor (SimSiam, BYOL), add negatives, or a variance term (VICReg).

    Attributes:
        spread: the part below which it has collapsed. Source: normalised features spread by almost all of their size;
            Chen and He (2021), "Exploring Simple Siamese Representation Learning", figure 2: 0 if it collapses.
        fall: the part of the spread at the start that may be left, else it was never there.
        pulled, fall_of_pulled: the same where gradients flow into all that the loss compares, without negatives: then
            nothing holds against it. Source: with one side detached half of the spread and more is left, and it grows.
        shrunk, still: the part of the size at the start below which all shrinks away, and of that in the middle of the
            training that must be lost as well. Source: of 237 runs without this mistake, none whose representations
            enter a loss without data loses more than half.
    """

    name = "representation-collapse"
    causes = "Nothing in the loss keeps samples apart: no negatives, no stop-gradient on one side, no predictor."
    remedy = "Detach one branch and keep the predictor, add negatives, or a term for the variance over the batch."
    spread: float = 0.05
    fall: float = 0.25
    pulled: float = 0.25
    fall_of_pulled: float = 0.35
    shrunk: float = 0.25
    still: float = 0.9

    def check(self, view: View) -> Iterable[Finding]:
        late, early = late_steps(view), view.training[:2]
        if len(late) < 3 or len(view.training) < 10 or view.is_young:
            return
        limit, part = (self.spread, self.fall) if _is_held(view) else (self.pulled, self.fall_of_pulled)
        for place in _representations(view):
            tensor = tensor_of(late[-1], place)
            if tensor is None or len(tensor.shape) < 2 or tensor.shape[-1] < _FEATURES:
                continue
            if _is_penalised(view, place):
                yield self._penalised(view, place)
                return
            for spread in (relative_spread, direction_spread):
                first = max((spread(step, place) for step in early), default=0.0)
                last = max(spread(step, place) for step in late)
                if last < limit and last < part * first:
                    yield self._finding(view, place, first, last, self._since(view, place, spread) or None)
                    return
                end = max(spread(step, place) for step in view.training[-_LAST:])
                if end < limit and end < part * first and (since := self._since(view, place, spread)):
                    yield self._finding(view, place, first, end, since)
                    return
            if len(view.objectives) == 1 and self._shrinks(rms(view.history(place.node, role=place.role))):
                yield self._shrinking(view, place)
                return

    def _penalised(self, view: View, place: Place) -> Finding:
        history = view.history(place.node, role=place.role)
        sizes = np.abs(history.of("abs_max"))  # no -0
        summary = (
            f"{place.node} is driven to zero ({sizes[0]:.2g} at the start, {sizes[-1]:.2g} at the end): a term of the "
            f"loss that compares it with no data, as a penalty does, outweighs all that it is needed for."
        )
        return self.finding(
            view, place.node, "error", summary, [evidence(history, "abs_max", "driven to zero")], confidence=0.85,
            step=int(history.steps[0]), source=line_of_loss(view, place.node),
            nodes=[place.node for place in view.objectives],
            causes="The weight of a penalty (sparsity, regularisation) is too large, or a sum is taken for a mean.",
            remedy="Lower the weight of the penalty until the rest of the loss falls; watch both terms.",
        )  # fmt: skip

    def _shrinks(self, sizes: Values) -> bool:
        """Whether numbers became a small part of what they were, and still become smaller."""
        if len(sizes) < _LEAST or not np.isfinite(sizes).all():
            return False
        eighth = len(sizes) // 8 + 1
        first, last = float(np.median(sizes[:2])), float(np.median(sizes[-eighth:]))
        middle = float(np.median(np.array_split(sizes, 3)[1]))
        return last < self.shrunk * first and last < self.still * middle

    def _shrinking(self, view: View, place: Place) -> Finding:
        history = view.history(place.node, role=place.role)
        sizes = rms(history)
        summary = (
            f"{place.node} collapses: all it gives shrinks towards one point (in size from {sizes[0]:.2g} to "
            f"{sizes[-1]:.2g}), and the loss, which compares it with no data, asks for nothing else: it knows no "
            f"volume and no negatives."
        )
        return self.finding(
            view, place.node, "warning", summary, [evidence(history, "std", "its spread over all elements")],
            step=int(history.steps[0]), confidence=0.75, source=line_of_loss(view, place.node),
            nodes=[place.node for place in view.objectives],
            remedy="Add what keeps samples apart: the log of the determinant (of a flow), negatives, or a variance.",
        )  # fmt: skip

    def _since(self, view: View, place: Place, spread: Spread) -> int:
        """The step from which on it falls, without coming back, after it had been as at the start; 0 if it was not."""
        steps = view.training[:: max(1, len(view.training) // _LOOKS)]
        values = np.array([spread(step, place) for step in steps])
        highest = int(np.argmax(values))
        falls = bool(np.all(np.diff(values[highest:]) < 0.1 * values[highest]))
        below = np.flatnonzero(values < 0.9 * values[highest])
        below = below[below > highest]
        return steps[int(below[0])].number if falls and highest > len(values) // 8 and len(below) else 0

    def _finding(self, view: View, place: Place, first: float, last: float, step: int | None = None) -> Finding:
        history = view.history(place.node, role=place.role)
        summary = (
            f"{place.node} collapses: its features vary over the batch by {last:.2g} of their size, {first:.2g} at the "
            f"start, and the loss compares them with no data."
        )
        shown = [evidence(history, "std", "its spread over all elements")]
        step = int(history.steps[0]) if step is None else step
        return self.finding(view, place.node, "error", summary, shown, step=step, confidence=0.8)


def _representations(view: View) -> list[Place]:
    """What enters a loss that has no data from outside, in data-flow order."""
    given: dict[Place, list[bool]] = {}
    for comparison in comparisons(view):
        kind = view.flow.vertices[comparison.target].type if comparison.target is not None else ""
        given.setdefault(comparison.prediction, []).append(kind in ("target", "input"))
    found = [place for place, with_data in given.items() if not any(with_data)]
    return sorted(found, key=lambda place: view.position.get(place.node, 0))


def _is_penalised(view: View, place: Place) -> bool:
    """Whether it shrinks to nothing, beside a comparison with data that it serves as well."""
    sizes = view.history(place.node, role=place.role).of("abs_max")
    others = [one for one in comparisons(view) if one.target is not None and one.prediction != place]
    return bool(others) and bool(sizes[-1] < _NOTHING * sizes[0])


def _is_held(view: View) -> bool:
    """Whether something without a gradient enters a loss, or negatives compete in a softmax."""
    return any(one.target is not None or one.operation == "cross_entropy" for one in comparisons(view))
