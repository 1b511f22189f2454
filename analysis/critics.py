"""Policies: whether one is trained, and the critic that a call of its loss is about."""

from __future__ import annotations

from stepscope.analysis.bounds import maker
from stepscope.analysis.flow import Site
from stepscope.analysis.lines import sites_of
from stepscope.analysis.view import View


def critic_at(view: View, site: Site) -> str:
    """The innermost module behind the critic's error, not what it is compared with; empty if there is none."""
    for place in site.before:
        if view.flow.vertices[place].type == "calculated" and view.nodes[place.node].module_class:
            return maker(view, place).node
    return ""


def plays(view: View) -> bool:
    """Whether the logarithm of what was chosen is weighed by data, as in a policy gradient: returns change with it."""
    return any("weighted" in site.operation for kind in ("plus log", "minus log") for site in sites_of(view, kind))
