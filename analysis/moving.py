"""Losses whose size says little of what is learned: those of a policy, and those whose targets move with the net."""

from __future__ import annotations

import numpy as np

from stepscope.analysis.flow import Place
from stepscope.analysis.lines import sites_of
from stepscope.analysis.loss_inputs import SMALL
from stepscope.analysis.parameters import is_unchanged
from stepscope.analysis.view import View

_ARITHMETIC = frozenset(["add", "radd", "iadd", "sub", "rsub", "mul", "rmul", "where"])
_ONE_WAY = 0.9
"""The rank correlation with the step from which on something goes one way."""


def is_of_policy(view: View) -> bool:
    """Whether the loss is a log-probability times data: its gradient counts, its size says nothing."""
    sites = [site for kind in ("plus log", "minus log") for site in sites_of(view, kind)]
    weighed = any("weighted" in site.operation and not site.after.isdisjoint(view.objectives) for site in sites)
    return weighed or _draws_of_its_own(view)


def _draws_of_its_own(view: View) -> bool:
    """Whether something is drawn with what a net says, and a loss is computed of both, unlike any usual one."""
    losses = [loss for loss in view.objectives if view.flow.vertices[loss].operation not in SMALL]
    sites = sites_of(view, "draw") + [site for site in sites_of(view, "cut") if site.operation == "add"]
    drawn = [site for site in sites if not site.after.isdisjoint(losses)]
    learned = view.flow.upstream(losses, differentiable=True) if drawn else set()
    return any(not site.before.isdisjoint(learned) for site in drawn)


def has_moving_targets(view: View) -> bool:
    """Whether a loss is held against what a net says that changes itself, as that of a target network."""
    return any(
        _is_moving(view, link.place)
        for loss in view.losses
        for link in view.flow.sources.get(loss, ())
        if not link.differentiable and not link.lag and view.flow.vertices[link.place].type == "calculated"
    )


def is_computed(view: View, target: Place) -> bool:
    """Whether a step computes its targets from numbers: returns that a net estimates, say."""
    return view.flow.vertices[target].operation in _ARITHMETIC


def is_computed_and_drifts(view: View, target: Place) -> bool:
    """The same of targets that go one way all along."""
    if not is_computed(view, target):
        return False
    means = view.history(target.node, role=target.role).of("mean")
    ranks = np.argsort(np.argsort(means))
    return len(means) > 2 and abs(float(np.corrcoef(ranks, np.arange(len(means)))[0, 1])) > _ONE_WAY


def _is_moving(view: View, place: Place) -> bool:
    behind = view.flow.upstream([place])
    weights = [p.node for p in behind if view.flow.vertices[p].type == "parameter" and len(view.history(p.node)) > 2]
    return any(not is_unchanged(view, weight) for weight in weights)
