"""The rule ``stale-copy``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.parameters import is_unchanged, listed
from stepscope.analysis.rule import Rule
from stepscope.analysis.twins import Copy, copies
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class StaleCopy(Rule):
    """A copy of a net (a target network, a momentum encoder) that never follows the net it was copied from.

    Symptom: values are learned from what a random net says; a student repeats a random teacher; the loss looks fine.

    How it is measured: a module without gradients starts with the weights of another one, which learns, and a loss is
    computed from what it gives. Its own weights are the same, bit for bit, in all recorded training steps.

    Causes: ``load_state_dict`` or the moving average is never called, is called with the copy's own weights, or with a
    decay of 1.

    Remedy: copy the weights every so many steps, or move them by a small part in every step. A reference that is meant
    to stay (of a policy that shall not drift, of a task learned before) is fine: that is why it is worth knowing only,
    unless very many steps have passed.

    Attributes:
        long: from so many steps on it is a warning. Source: target networks of published agents follow every 10,000
            steps at most.
    """

    name = "stale-copy"
    about = "optimizer"
    causes = "load_state_dict or the moving average is never called, or gets the copy's own weights or a decay of 1."
    remedy = "Copy the weights every so many steps, or move them by a small part in each; if it shall stay, fine."
    long: int = 20_000

    def check(self, view: View) -> Iterable[Finding]:
        if len(view.training) < 10:
            return
        used = view.flow.upstream(view.losses)
        for copy in copies(view):
            is_used = any(place in used for place in view.flow.of_node(copy.path))
            if is_used and all(is_unchanged(view, node) for node in copy.parameters):
                yield self._finding(view, copy)

    def _finding(self, view: View, copy: Copy) -> Finding:
        first, last = view.training[0].number, view.training[-1].number
        level: Level = "warning" if last - first >= self.long else "info"
        summary = (
            f"{copy.path} started as a copy of {copy.original}, and is never updated: its weights "
            f"({listed(copy.parameters)}) do not change from step {first} to step {last}, while a loss is computed "
            f"from what it gives. A target network or a teacher that does not follow stays random."
        )
        shown = [
            evidence(view.history(copy.parameters[0]), "norm", "the copy"),
            evidence(view.history(copy.parameters[0].replace(copy.path, copy.original, 1)), "norm", "the original"),
        ]
        nodes = [*copy.parameters, copy.original]
        return self.finding(view, copy.path, level, summary, shown, step=first, nodes=nodes, confidence=0.7)
