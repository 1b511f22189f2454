"""The rule ``stale-copy``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.curves import loss_curves
from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.followers import Follower, followers, still_buffers, way_gone
from stepscope.analysis.parameters import is_unchanged, listed
from stepscope.analysis.rule import Rule
from stepscope.analysis.twins import Copy, copies
from stepscope.analysis.view import View, evidence

_NAMES = ("the copy", "the net")


@dataclass(frozen=True)
class StaleCopy(Rule):
    """A copy of a net (a target network, a momentum encoder) that never follows the net it was copied from.

    Symptom: values are learned from what a random net says; a student repeats a random teacher; the loss looks fine.

    How it is measured: a module without gradients starts with the weights of another one, which learns, and a loss is
    computed from what it gives. Its own weights are the same, bit for bit, in all recorded training steps.

    Besides, of a copy that moves and is what is evaluated (a moving average of the weights): it has gone a small part
    of the net's own way by the last step, and its loss is still near that of an untrained net, while the net's own has
    fallen. Or the running statistics of its normalisations are the same in all steps, while those of the net change.

    Causes: ``load_state_dict`` or the moving average is never called, is called with the copy's own weights, or with a
    decay of 1.

    Remedy: copy the weights every so many steps, or move them by a small part in every step. A reference that is meant
    to stay (of a policy that shall not drift, of a task learned before) is fine: that is why it is worth knowing only,
    unless very many steps have passed.

    Attributes:
        long: from so many steps on it is a warning. Source: target networks of published agents follow every 10,000
            steps at most.
        part: of the way. Source: of ours; an average over a tenth of the steps so far has gone nearly all of it.
        untrained, learned: parts of the first training loss; above the one nothing was learned, below the other much.
            Source: of ours.
    """

    name = "stale-copy"
    about = "optimizer"
    causes = "load_state_dict or the moving average is never called, or gets the copy's own weights or a decay of 1."
    remedy = "Copy the weights every so many steps, or move them by a small part in each; if it shall stay, fine."
    long: int = 20_000
    part: float = 0.3
    untrained: float = 0.75
    learned: float = 0.5

    def check(self, view: View) -> Iterable[Finding]:
        if len(view.training) < 10:
            return
        used = view.flow.upstream(view.losses)
        for copy in copies(view):
            is_used = any(place in used for place in view.flow.of_node(copy.path))
            if is_used and all(is_unchanged(view, node) for node in copy.parameters):
                yield self._finding(view, copy)
        for follower in followers(view):
            yield from self._slow(view, follower)
            yield from self._without_statistics(view, follower)

    def _slow(self, view: View, follower: Follower) -> Iterable[Finding]:
        """An average that is still what it began as."""
        evaluated = view.trial.series(follower.loss.node, role=follower.loss.role, kind=follower.kind)
        curve = max((curve for curve in loss_curves(view)), key=len, default=None)
        if curve is None or len(evaluated.values) < 2 or curve.end > self.learned * curve.low_start:
            return
        part, end = way_gone(view, follower), float(np.median(evaluated.values[-2:]))
        if part < self.part and end > self.untrained * curve.low_start:
            path = follower.copy.path
            summary = (
                f"{path}, a moving average of {follower.copy.original}, hardly follows it: it has gone {part:.1%} of "
                f"its way by step {view.training[-1].number}, and its loss in steps of kind {follower.kind!r} is "
                f"{end:.3g}, while the net itself came to {curve.end:.3g}."
            )
            first = follower.pairs[0]
            shown = [evidence(view.history(node), "norm", name) for node, name in zip(first, _NAMES, strict=True)]
            yield self.finding(
                view, path, "warning", summary, shown, step=int(evaluated.steps[0]), confidence=0.85,
                nodes=[*follower.copy.parameters, follower.copy.original], causes="A decay for far longer trainings.",
                remedy="A smaller decay, or one that warms up: min(decay, (1 + step) / (10 + step)).",
            )  # fmt: skip

    def _without_statistics(self, view: View, follower: Follower) -> Iterable[Finding]:
        still = still_buffers(view, follower)
        evaluated = [step.number for step in view.steps if step.kind == follower.kind]
        if still:
            summary = (
                f"{follower.copy.path} follows the parameters of {follower.copy.original}, and not the running "
                f"statistics of its normalisations: {listed(still)} never change, and steps of kind "
                f"{follower.kind!r} normalise by them."
            )
            yield self.finding(
                view, still[0], "warning", summary, [evidence(view.history(still[0]), "norm", "never changes")],
                step=evaluated[0], nodes=[*still[1:], still[0].rpartition(".")[0], follower.copy.path],
                confidence=0.9, causes="An average over parameters() alone, where buffers are needed, too.",
                remedy="Copy the buffers in each update (use_buffers=True), or run update_bn before evaluating.",
            )  # fmt: skip

    def _finding(self, view: View, copy: Copy) -> Finding:
        first, last = view.began, view.training[-1].number
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
