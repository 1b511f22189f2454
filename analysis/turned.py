"""The losses of a trial that jump up and stay there."""

from __future__ import annotations

from collections.abc import Iterator

from stepscope.analysis.curves import Curve, loss_curves
from stepscope.analysis.turns import Turn, find_turn
from stepscope.analysis.view import View


def turned_curves(view: View, **limits: float) -> Iterator[tuple[Curve, Turn]]:
    """Each loss that has a turn, with it; none where several losses work against each other.

    Args:
        limits: other ones than the defaults of ``find_turn``.
    """
    if len(view.objectives) > 1:
        return
    for curve in loss_curves(view):
        turn = find_turn(curve.values, **limits)
        if turn is not None:
            yield curve, turn


def first_turn(view: View) -> int | None:
    """The first step at which a loss has jumped to a level from which it does not come back."""
    return min((int(curve.steps[turn.index]) for curve, turn in turned_curves(view)), default=None)
