"""The rule ``shifted-labels``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.rule import Rule
from stepscope.analysis.shifts import Shift, shifts
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class ShiftedLabels(Rule):
    """The labels of a language model are shifted by another number of places than one.

    Symptom: the loss falls, though less than it should, and what the model writes skips every other token; or the loss
    falls to nothing, since the answer has been read already.

    How it is measured: all known targets of a cross-entropy stand in an input of whole numbers, the same number of
    places later, and no other number fits as well. Slices that cut the beginning off the scores are counted. Two places
    and more are a mistake, unless another loss asks for the very next token of the same input. Places before are worth
    knowing only: to repeat what was read may be the task.

    Causes: labels that the data set shifts, and the loss or the model shifts once more; a slice at the wrong side.

    Remedy: shift once: ``scores[:, :-1]`` against ``tokens[:, 1:]``, or targets that were shifted when they were loaded
    against all scores.

    Source: no threshold; numbers decide.
    """

    name = "shifted-labels"
    about = "targets"
    causes = (
        "The loader shifts the labels, and the loss or the model shifts them once more; or a slice at the wrong end."
    )
    remedy = "Shift once: scores[:, :-1] against tokens[:, 1:], or targets that were shifted when loaded, as they are."

    def check(self, view: View) -> Iterable[Finding]:
        found = shifts(view)
        right = {shift.input for shift in found if shift.places == 1} | {
            shift.target for shift in found if shift.places == 1
        }
        for shift in found:
            if shift.places not in (0, 1) and not right & {shift.input, shift.target}:
                yield self._finding(view, shift)

    def _finding(self, view: View, shift: Shift) -> Finding:
        places, later = abs(shift.places), shift.places > 0
        where = f"{places} places later" if later else f"{places} place{'s' * (places > 1)} before"
        what = "shifted twice?" if later else "the net has read the answer already."
        history = view.history(shift.target.node, role=shift.target.role)
        level: Level = "warning" if later else "info"
        target = shift.target.node if shift.target != shift.input else "The targets"
        verb = "is" if shift.target != shift.input else "are"
        summary = (
            f"{target} {verb} {shift.input.node} {where}, where a language model predicts the next token, one place "
            f"later: the labels are shifted by {shift.places}, {what}"
        )
        return self.finding(
            view, shift.target.node, level, summary, [evidence(history, "mean", "the targets")],
            step=view.began, confidence=0.9 if later else 0.6,
            nodes=list(dict.fromkeys([shift.comparison.loss.node, shift.input.node])),
        )  # fmt: skip
