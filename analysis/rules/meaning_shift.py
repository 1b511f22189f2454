"""The rule ``meaning-shift``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.curves import Curve, loss_curves
from stepscope.analysis.distributions import kept, reordered_columns, reordered_words
from stepscope.analysis.finding import Finding
from stepscope.analysis.loss_inputs import comparisons, is_floating
from stepscope.analysis.parameters import listed
from stepscope.analysis.renumbered import answers, how_renumbered
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store import Step

_WINDOW, _NEXT, _MOST = 8, 3, 60
_SOME = (3, 4, 5)


@dataclass(frozen=True)
class MeaningShift(Rule):
    """From one step on the same numbers mean something else: classes, tokens or columns in another order.

    Symptom: the loss jumps up in the midst of the training and comes down again, as if all had to be learned anew; what
    was evaluated before fails.

    How it is measured: at the step at which a single loss jumps highest above all of the eight recorded steps before.
    Of classes: in the first steps after it, the answers of the net tell the targets, if each class is given another
    number; before it they were right. Of the columns of a table, as far as they are kept: several have another
    distribution than before (Kolmogorov and Smirnov), and all have one that some column had before. Of words: many are
    others than before, and the commonest of them is as common as the commonest was, and so on.

    Causes: a second file with its columns, or a vocabulary with its words, in another order; classes that are numbered
    by the folders that are there.

    Remedy: read columns by name; save the table of words, or classes, with the model, and use it ever after.

    Attributes:
        rise: times its level before. Source: of ours; noise beyond all of eight steps before is less, in the median of
            three.
        words: the share of the words that are others. Source: of ours; batches of one text differ by a tenth.
        known: the share of right answers before. Source: of ours.
    """

    name = "meaning-shift"
    causes = "Columns, words or classes in another order: another file, or a table that was made anew."
    remedy = "Read columns by name; save the table of words or classes with the model, and use it ever after."
    rise: float = 1.7
    words: float = 0.4
    known: float = 0.7

    def check(self, view: View) -> Iterable[Finding]:
        curves = list(loss_curves(view))
        step = self._jump(curves[0]) if len(curves) == 1 else None
        if step is None:
            return
        before = [one for one in view.training if one.number < step][-_MOST:]
        after = [one for one in view.training if one.number >= step][:_MOST]
        renumbered = list(self._classes(view, before, after, step))
        yield from renumbered or self._inputs(view, before, after, step)

    def _jump(self, curve: Curve) -> int | None:
        """The step at which a loss rises most, if that is beyond all that was usual."""
        values = curve.values
        if len(values) < 2 * _WINDOW:
            return None
        rises = np.zeros(len(values))
        for place in range(_WINDOW, len(values) - _NEXT + 1):
            past, following = values[place - _WINDOW : place], float(np.median(values[place : place + _NEXT]))
            usual = float(np.median(past))
            is_high = min(following, values[place]) > max(self.rise * usual, float(past.max())) and usual > 0
            rises[place] = following / usual if is_high else 0.0
        place = int(np.argmax(rises))
        return int(curve.steps[place]) if rises[place] > 0 else None

    def _classes(self, view: View, before: list[Step], after: list[Step], step: int) -> Iterable[Finding]:
        for comparison in comparisons(view):
            if comparison.target is None or len(comparison.shape) != 2 or len(comparison.target_shape) != 1:
                continue
            chosen, wanted = answers(before[-_WINDOW:], comparison.prediction, comparison.target)
            is_data = view.flow.vertices[comparison.target].type == "target"
            if not is_data or not len(chosen) or np.mean(chosen == wanted) < self.known:
                continue
            told = (how_renumbered(*answers(after[:some], comparison.prediction, comparison.target)) for some in _SOME)
            how = next((text for text in told if text), "")
            if how:
                target = comparison.target.node
                summary = (
                    f"The targets change at step {step}: the classes of {target} are numbered otherwise from there on "
                    f"({how}), and the loss jumps."
                )
                yield self._at(view, target, summary, step, [comparison.loss.node])

    def _inputs(self, view: View, before: list[Step], after: list[Step], step: int) -> Iterable[Finding]:
        used = view.flow.upstream(view.losses)
        for place in (place for place in view.flow.of_type("input") if place in used):
            sides = [kept(steps, place) for steps in (before, after)]
            how = ""
            if not all(side.size for side in sides):
                continue
            if not is_floating(view, place):
                share = reordered_words(*sides)
                how = f"{share:.0%} of its numbers are others than before, as often as those were" * (
                    share > self.words
                )
            elif len(view.shape(place, after[0]) or ()) == 2 and (columns := reordered_columns(*sides)):
                how = f"its columns {listed(map(str, columns))} are distributed as others were before"
            if how:
                summary = (
                    f"The inputs change at step {step}, when the loss jumps: {how} ({place.node}): columns, or a "
                    f"vocabulary, in another order."
                )
                targets = [target.node for target in view.flow.of_type("target")]
                yield self._at(view, place.node, summary, step, targets)

    def _at(self, view: View, node: str, summary: str, step: int, nodes: list[str]) -> Finding:
        shown = [evidence(view.history(node), "mean", f"other numbers from step {step} on")]
        return self.finding(view, node, "warning", summary, shown, step=step, nodes=nodes, confidence=0.85)
