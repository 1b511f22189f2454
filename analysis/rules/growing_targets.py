"""The rule ``growing-targets``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.curves import fallen
from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.flow import Place
from stepscope.analysis.history import Values
from stepscope.analysis.layers import rms
from stepscope.analysis.lines import line_of_bootstrapped
from stepscope.analysis.loss_inputs import Comparison, comparisons
from stepscope.analysis.moving import is_computed_and_drifts
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class GrowingTargets(Rule):
    """Targets that a net computes itself, and that keep growing with its predictions: there is no value to arrive at.

    Symptom: values of an agent rise and rise, and the loss with them; each prediction chases the next one.

    How it is measured: a loss compares a prediction with something computed that no gradient flows through (what a
    target network says). The size (root mean square) of it grew many times, and by as much in the second half of the
    steps as in the first; the prediction grew with it. Values that have a limit are approached more and more slowly.

    Causes: the last step of an episode is not told apart (``1 - done`` is missing), a discount of 1 or more, rewards
    that are counted twice, a maximum over noisy values, next states that are prepared in another way than states.

    Remedy: let nothing follow the end of an episode, discount by less than 1, bound or normalise rewards.

    Attributes:
        growth: times the size of the first steps. Source: of ours; a random net's values are a tenth of later ones.
        steady: the growth in the second half as a part of that in the first. Source: with a limit it is less than half
            once the first half has shown where that is; without one it is 1 and more.
    """

    name = "growing-targets"
    about = "loss"
    causes = (
        "The end of an episode is not told apart (1 - done is missing), a discount of 1 or more, or next states that "
        "are not normalised as the states are."
    )
    remedy = (
        "Let nothing follow the end of an episode, discount by less than 1, prepare next states as states, and bound "
        "or normalise rewards."
    )
    growth: float = 10.0
    steady: float = 0.8

    def check(self, view: View) -> Iterable[Finding]:
        if len(view.training) < 30:
            return
        for comparison in comparisons(view):
            target = comparison.target
            if target is None or not self._is_computed(view, target):
                continue
            wanted = rms(view.history(target.node, role=target.role))
            given = rms(view.history(comparison.prediction.node, role=comparison.prediction.role))
            if self._grows(wanted) and self._grows(given):
                yield self._finding(view, comparison, wanted)
                return

    def _is_computed(self, view: View, target: Place) -> bool:
        return view.flow.vertices[target].type == "calculated" or is_computed_and_drifts(view, target)

    def _grows(self, sizes: Values) -> bool:
        """Whether sizes grow steadily, up to the end."""
        tenth = max(3, len(sizes) // 10)
        half = len(sizes) // 2
        if len(sizes) < 3 * tenth:
            return False
        start, end = float(np.median(sizes[:tenth])), float(np.median(sizes[-tenth:]))
        middle = float(np.median(sizes[half - tenth // 2 : half + tenth // 2 + 1]))
        far = end > self.growth * start > 0
        return far and end - middle > self.steady * (middle - start)

    def _finding(self, view: View, comparison: Comparison, sizes: Values) -> Finding:
        assert comparison.target is not None
        target, prediction = comparison.target, comparison.prediction
        level: Level = "warning" if fallen(view) <= 0 else "info"
        summary = (
            f"The targets keep growing, and grow without bound: {target.node}, which {prediction.node} is held "
            f"against, has a size of {sizes[0]:.2g} at first and {sizes[-1]:.3g} at last (root mean square), and the "
            f"prediction grows with it."
        )
        shown = [
            evidence(view.history(target.node, role=target.role), "abs_mean", "what it is held against"),
            evidence(view.history(prediction.node, role=prediction.role), "abs_mean", "the prediction"),
        ]
        step, nodes = view.began, [target.node, comparison.loss.node]
        source = line_of_bootstrapped(view, target, comparison.loss)
        return self.finding(
            view, prediction.node, level, summary, shown, step=step, nodes=nodes, confidence=0.7, source=source
        )
