"""The rule ``no-backward``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.optimizers import held_by
from stepscope.analysis.parameters import trainable
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_KIND = "train"


@dataclass(frozen=True)
class NoBackward(Rule):
    """No step of a training ever computes a gradient, although an optimizer holds the weights.

    Symptom: the loss stays where it is, or is a constant.

    How it is measured: steps of the kind "train" were recorded, and neither gradients nor updates in any of them; the
    trainable parameters, which a watched optimizer holds, are the same from the first to the last step.

    Causes: ``backward()`` and ``step()`` are never called, or behind a condition that is never true; a method that is
    still a stub.

    Remedy: look at what is called between the loss and the end of the step.

    Attributes:
        least: the recorded steps by which it can be told from a late start. Source: of ours; warm-ups that only fill a
            buffer are seldom steps of a training.
    """

    name = "no-backward"
    about = "loss"
    causes = "backward() and step() are never called, or behind a condition that is never true."
    remedy = "Look at what is called between the loss and the end of the step."
    least: int = 20

    def check(self, view: View) -> Iterable[Finding]:
        steps = [step for step in view.steps if step.kind == _KIND]
        holders = held_by(view)
        held = [parameter for parameter in trainable(view) if holders.get(parameter.node)]
        if view.training or view.broken or len(steps) < self.least or not held:
            return
        histories = [view.history(parameter.node, training=False) for parameter in held]
        if any(not len(history) or not history.is_constant for history in histories):
            return
        summary = (
            f"Nothing is trained: in none of {len(steps)} steps of kind {_KIND!r} is backward() called, or a weight "
            f"changed, although an optimizer holds {len(held)} parameters."
        )
        node = next((place.node for place in view.losses), held[0].node)
        shown = [evidence(histories[0], "norm", "always the same")]
        yield self.finding(
            view, node, "warning", summary, shown, step=steps[0].number, confidence=0.9,
            nodes=[parameter.node for parameter in held],
        )  # fmt: skip
