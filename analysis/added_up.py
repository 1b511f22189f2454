"""What makes gradients large besides the learning rate: sums where means are usual."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stepscope.analysis.baseline import baselines, is_sum
from stepscope.analysis.lines import line_of_loss, line_of_step
from stepscope.analysis.view import View
from stepscope.store.records import BACKWARD, HELD_GRADIENTS, SourceLine

_SCALED = frozenset(["div", "truediv", "idiv", "mul", "rmul", "imul"])
_LEAST = 3
"""How often gradients begin anew, at least, and about as often as there are updates: else ``zero_grad`` is missing."""


class Sum(NamedTuple):
    """In words, and the line."""

    text: str
    source: SourceLine | None


def added_up(view: View) -> Sum | None:
    """The first of: a loss that is a sum over the batch; gradients of several batches that are not averaged."""
    for baseline in baselines(view):
        history = view.history(baseline.loss.node, role=baseline.loss.role)
        if len(history) and is_sum(float(history.of("mean")[0]), baseline):
            text = f"{baseline.loss.node} is a sum over the batch, not a mean."
            return Sum(text, line_of_loss(view, baseline.loss.node))
    calls = max(len(view.training[0].iterations), _batches_per_update(view)) if view.training else 0
    if calls > 2 and _is_undivided(view):
        text = f"The gradients of {calls} accumulated batches are added up: no loss is divided by {calls}."
        return Sum(text, line_of_step(view, BACKWARD))
    return None


def _batches_per_update(view: View) -> int:
    """How many steps, one batch each, an update takes: all but the first of them add to the gradients of the others."""
    goes_on = [
        any(call.operation == HELD_GRADIENTS for number in step.iterations for call in step.graph(number).calls)
        for step in view.training
    ]
    updates = sum(any(tensor.quantity == "update" for tensor in step.layout.tensors) for step in view.training)
    fresh = len(goes_on) - sum(goes_on)
    is_regular = fresh >= _LEAST and fresh / 2 < updates < 2 * fresh
    return round(len(goes_on) / fresh) if is_regular else 1


def _is_undivided(view: View) -> bool:
    """Whether what ``backward`` is called on is a loss as it comes: no part of it, and not multiplied with one."""
    weights = [view.history(loss.node, "gradient", role=loss.role).of("mean") for loss in view.objectives]
    operations = {view.flow.vertices[loss].operation for loss in view.objectives}
    return bool(weights) and not operations & _SCALED and all(len(w) and bool(np.all(w == 1)) for w in weights)
