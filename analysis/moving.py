"""Losses whose size says little of what is learned: those of a policy, and those whose targets move with the net."""

from __future__ import annotations

from stepscope.analysis.flow import Place
from stepscope.analysis.lines import sites_of
from stepscope.analysis.parameters import is_unchanged
from stepscope.analysis.view import View


def is_of_policy(view: View) -> bool:
    """Whether the loss is a log-probability times data: its gradient counts, its size says nothing."""
    sites = [site for kind in ("plus log", "minus log") for site in sites_of(view, kind)]
    return any("weighted" in site.operation and not site.after.isdisjoint(view.objectives) for site in sites)


def has_moving_targets(view: View) -> bool:
    """Whether a loss is held against what a net says that changes itself, as that of a target network."""
    return any(
        _is_moving(view, link.place)
        for loss in view.losses
        for link in view.flow.sources.get(loss, ())
        if not link.differentiable and not link.lag and view.flow.vertices[link.place].type == "calculated"
    )


def _is_moving(view: View, place: Place) -> bool:
    behind = view.flow.upstream([place])
    weights = [p.node for p in behind if view.flow.vertices[p].type == "parameter" and len(view.history(p.node)) > 2]
    return any(not is_unchanged(view, weight) for weight in weights)
