"""The rule ``idle-steps``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile

from stepscope.analysis.finding import Finding
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store import Step
from stepscope.store.records import SourceLine


@dataclass(frozen=True)
class IdleSteps(Rule):
    """From a step on the training computes nothing any more: no layer is called, and no gradient reaches a weight.

    Symptom: the loss is the same number for ever, and the weights stand still, though steps are counted.

    How it is measured: of the steps of a kind that trains, all from one of them on have no output of a layer, no input
    and no gradient, where the ones before had.

    Causes: the data is exhausted (an iterator that is read once), an ``if`` that leaves out every batch, an exception
    that is caught and passed over.

    Remedy: begin the data anew for each epoch, and stop, or fail, where there is nothing to train with.

    Attributes:
        least: so many steps at the end. Source: of ours; a last batch may be left out.
    """

    name = "idle-steps"
    about = "loss"
    causes = "The data is exhausted, every batch is left out by a condition, or an exception is passed over."
    remedy = "Begin the data anew for each epoch, and stop, or fail, where there is nothing to train with."
    least: int = 5

    def check(self, view: View) -> Iterable[Finding]:
        for kind in sorted(view.training_kinds):
            steps = [step for step in view.steps if step.kind == kind]
            idle = list(takewhile(_is_idle, reversed(steps)))
            if self.least <= len(idle) < len(steps):
                since = idle[-1].number
                node = next((loss.node for loss in view.objectives), "")
                summary = (
                    f"No layer is called and nothing is trained from step {since} on: the last {len(idle)} of "
                    f"{len(steps)} recorded steps of kind {kind!r} compute nothing, as if the data were exhausted."
                )
                shown = [evidence(view.history(node, training=False), "mean", "the loss")] if node else []
                yield self.finding(
                    view, node, "error", summary, shown, step=since, confidence=0.9, source=_line_of_loss(idle[-1])
                )


def _line_of_loss(step: Step) -> SourceLine | None:
    """Where a number is recorded as the loss, although nothing is computed."""
    vertices = (vertex for iteration in step.iterations for vertex in step.graph(iteration).vertices)
    return next((vertex.source for vertex in vertices if vertex.type == "loss"), None)


def _is_idle(step: Step) -> bool:
    """Whether there is nothing in a step but weights, and single numbers that somebody recorded."""
    return not any(
        tensor.type in ("input", "calculated") or tensor.quantity.startswith(("gradient", "update"))
        for tensor in step.layout.tensors
    )
