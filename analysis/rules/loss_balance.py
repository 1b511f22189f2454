"""The rule ``loss-balance``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.flow import Place
from stepscope.analysis.history import Values
from stepscope.analysis.loss_inputs import SMALL
from stepscope.analysis.robust import median
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_LEAST = 10


@dataclass(frozen=True)
class LossBalance(Rule):
    """A term of the loss that has no say, because the others are a thousand times as large.

    Symptom: the total falls, but what one of its terms asks for is not learned.

    How it is measured: a term's gradient is the weight that the total gives it, and its value times that weight is its
    part of the total. It counts if that is tiny in the first third of the steps. It is a warning if the term compares
    with data (a cross-entropy, a mean square) and does not fall either; a term that falls in spite of it, or a
    divergence that begins at zero, is worth knowing only.

    Or the number that a term is multiplied with grows in every step to the very end, evenly, from next to nothing to
    more than ``most``: a warm-up that is not kept at its end (1, in most papers).

    Causes: a penalty or divergence that weighs too much, or is a sum where the other term is a mean; a second task
    whose targets are in their own units.

    Remedy: weigh the terms so that their gradients are of one size; average both alike; standardise targets.

    Attributes:
        part: of the total. Source: three orders of magnitude are more than different units of well-scaled tasks.
        fall: the part of itself that the term should lose.
        heavy: a term that weighs less than this is small on purpose.
        beside, learned: of a term that is this part of the total at most it counts, too, if it has not fallen while
            the total lost this part of itself. Source: of ours; the gradient of the rest turns all.
        most: the weight at the end. Source: of ours; warm-ups of a divergence end at 1, few at 2.
    """

    name = "loss-balance"
    about = "loss"
    causes = (
        "A penalty or divergence that weighs too much (or is summed where the other is averaged); targets in units."
    )
    remedy = "Weigh the terms so that their gradients are of one size, average both alike, and standardise targets."
    part: float = 1e-3
    fall: float = 0.05
    heavy: float = 0.1
    most: float = 3.0
    beside: float = 0.1
    learned: float = 0.5

    def check(self, view: View) -> Iterable[Finding]:
        yield from self._growing(view)
        for total in view.objectives:
            for term in _terms(view, total):
                yield from self._look(view, total, term)

    def _growing(self, view: View) -> Iterable[Finding]:
        known = [(step.number, step.facts.get("loss_factors")) for step in view.training]
        weights = [(number, found) for number, found in known if isinstance(found, list)]
        if len(weights) < _LEAST or len({len(found) for _, found in weights}) != 1:
            return
        numbers, table = np.array([number for number, _ in weights]), np.array([found for _, found in weights])
        for column in table.T:
            if _grows_evenly(numbers, column) and column[-1] > self.most:
                yield self._unending(view, column)

    def _unending(self, view: View, weights: Values) -> Finding:
        loss = view.objectives[0]
        past = view.training[int(np.argmax(weights > 1))].number
        summary = (
            f"The weight of a term of {loss.node} grows on and on: from {weights[0]:.3g} to {weights[-1]:.3g} at the "
            f"last step, evenly, and past 1 from step {past} on; it comes to dominate the rest."
        )
        shown = [evidence(view.history(loss.node, role=loss.role), "mean", "the total")]
        return self.finding(
            view, loss.node, "warning", summary, shown, step=past, confidence=0.75,
            causes="A warm-up of a weight without its end.", remedy="Keep it at its end: min(1.0, step / warm_up).",
        )  # fmt: skip

    def _look(self, view: View, total: Place, term: Place) -> Iterable[Finding]:
        value = view.history(term.node, role=term.role)
        weight = view.history(term.node, "gradient", role=term.role)
        whole = view.history(total.node, role=total.role)
        if len(value) < _LEAST or not np.array_equal(value.steps, weight.steps) or len(whole) != len(value):
            return
        first = slice(None, len(value) // 3)
        parts = np.abs(value.of("mean") * weight.of("mean"))[first] / np.maximum(np.abs(whole.of("mean"))[first], 1e-30)
        part = median(parts)
        fall, is_heavy = _fall(value.of("mean")), median(np.abs(weight.of("mean"))) > 1.01 * self.heavy
        is_passed_over = part < self.beside and fall < self.fall and _fall(whole.of("mean")) > self.learned
        if is_heavy and (0 < part < self.part or (is_passed_over and not view.is_young)):
            yield self._finding(view, total, term, part, fall)

    def _finding(self, view: View, total: Place, term: Place, part: float, fall: float) -> Finding:
        is_data = view.flow.vertices[term].operation in SMALL
        level: Level = "warning" if fall < self.fall and is_data else "info"
        history = view.history(term.node, role=term.role)
        summary = (
            f"The term {term.node} has no say in {total.node}: it is {part:.1g} of it, the rest drowns it; it has "
            f"{'not fallen' if fall <= 0 else f'lost {fall:.0%} of its start'}."
        )
        whole = view.history(total.node, role=total.role)
        shown = [evidence(history, "mean", "the term"), evidence(whole, "mean", "the total")]
        step, nodes = int(history.steps[0]), [total.node, *_others(view, total, term)]
        return self.finding(view, term.node, level, summary, shown, step=step, nodes=nodes, confidence=0.7)


def _grows_evenly(steps: Values, weights: Values) -> bool:
    """Whether numbers rise in every step, on a straight line that begins near zero."""
    rises = np.diff(weights) / np.diff(steps)
    return bool(np.all(rises > 0) and np.ptp(rises) < 0.05 * rises.max() and weights[0] < 0.1 * weights[-1])


def _terms(view: View, total: Place) -> list[Place]:
    """The losses that a total is directly made of."""
    links = view.flow.sources.get(total, ())
    return [link.place for link in links if link.differentiable and link.place in view.losses]


def _others(view: View, total: Place, term: Place) -> list[str]:
    return [place.node for place in _terms(view, total) if place != term]


def _fall(values: Values) -> float:
    tenth = max(3, len(values) // 10)
    start, end = float(np.median(values[:tenth])), float(np.median(values[-tenth:]))
    return (start - end) / max(abs(start), 1e-30)
