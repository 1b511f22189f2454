"""What is wrong only since a loss has left its course: the steps after its jump are looked at by themselves.

Over a whole run, what begins in the midst of it is lost in the medians of what was right before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from stepscope.analysis.finding import Finding
from stepscope.analysis.rule import Rule
from stepscope.analysis.section import Section
from stepscope.analysis.turned import first_turn
from stepscope.analysis.view import View

LOOK_AGAIN = frozenset(
    [
        "accumulated-gradients", "batch-norm-mode", "broadcast-target", "constant-data", "constant-output",
        "dead-units", "dropout-mode", "duplicate-samples", "extreme-features", "frozen-parameters", "gradient-cut",
        "ignored-input", "imbalanced-targets", "input-scale", "learning-rate", "no-gradient", "saturated-activation",
        "single-class", "target-scale", "unchanged-parameters", "unrelated-targets", "vanishing-gradient",
    ]
)  # fmt: skip
"""Rules that need no beginning of a training: data, modes, gradients and updates."""

_OF_ALL = frozenset(["learning-rate"])
"""What is said of a training as a whole, at whichever node: it is not said again of a part of it."""

Apply = Callable[[Rule, View], Iterable[Finding]]
_LEAST = 20


def changes(view: View, apply: Apply, rules: Iterable[Rule], found: Iterable[Finding]) -> list[Finding]:
    """What is found after a loss has jumped, and neither before nor in the whole.

    Args:
        view: the whole trial.
        apply: lets a rule look at a view.
        rules: those that were applied to the whole; a part of them looks again.
        found: what they found.
    """
    turn = first_turn(view)
    if turn is None:
        return []
    steps = view.trial.steps
    first, last = int(steps[0]), int(steps[-1])
    again = [rule for rule in rules if rule.name in LOOK_AGAIN]
    later = [finding for finding in found if (finding.step or 0) >= turn or finding.rule in _OF_ALL]
    known = {(finding.rule, finding.node) for finding in later}
    after = _findings(View(Section(view.trial, turn, last)), apply, again)
    before = _findings(View(Section(view.trial, first, turn - 1)), apply, again)
    known.update((finding.rule, finding.node) for finding in before)
    return [
        replace(finding, step=max(turn, finding.step or 0))
        for finding in after
        if (finding.rule, finding.node) not in known and finding.level != "info"
    ]


def _findings(view: View, apply: Apply, rules: Iterable[Rule]) -> list[Finding]:
    return [finding for rule in rules for finding in apply(rule, view)] if len(view.training) >= _LEAST else []
