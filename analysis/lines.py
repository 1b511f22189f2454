"""Which line of the user's code a finding is about: not always the one that made its node."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from stepscope.analysis.flow import Flow, Place, Site
from stepscope.analysis.view import View, different_graphs
from stepscope.store import Step
from stepscope.store.records import (
    BACKWARD,
    EARLY_CLIPPING,
    HELD_GRADIENTS,
    OPTIMIZER_STEP,
    ZERO_GRAD,
    SourceLine,
)

LineOf = Literal["node", "loss", "targets", "optimizer", "attention", "gradients"]
"""What the findings of a rule are about, unless one says so itself; ``targets`` that come as data have the loss's."""

_NOT_CLIPPING = (BACKWARD, ZERO_GRAD, OPTIMIZER_STEP, EARLY_CLIPPING, HELD_GRADIENTS)


def line_for(view: View, node: str, about: LineOf) -> SourceLine | None:
    """The line that a finding at a node names; that of the node itself where the recording knows no better one."""
    found: SourceLine | None = None
    if about == "loss" or about == "targets":
        found = (_line_of_made_target(view, node) if about == "targets" else None) or line_of_loss(view, node)
    elif about == "optimizer":
        found = line_of_step(view, OPTIMIZER_STEP) or line_of_step(view, BACKWARD)
    elif about == "gradients":
        found = next((site.source for site in _steps(view) if site.operation not in _NOT_CLIPPING), None)
    elif about == "attention":
        found = next((site.source for site in sites_of(view, "attention") if _is_at(site.after, node)), None)
    return found or line_of_node(view, node)


def _line_of_made_target(view: View, node: str) -> SourceLine | None:
    """Where a step itself makes a target out of its data."""
    known = view.nodes.get(node)
    is_made = known is not None and known.type == "target" and bool(known.operation)
    return known.source if known is not None and is_made else None


def line_of_node(view: View, node: str) -> SourceLine | None:
    """Where a node is made; of a parameter, where its module is called, or where it is used without that."""
    known = view.nodes.get(node)
    if known is None:
        return None
    if known.source is None and known.type in ("parameter", "buffer"):
        return _line_of_module(view, known.module) or _line_of_use(view, node) or _line_of_sibling(view, known.module)
    return known.source


def _line_of_module(view: View, module: str) -> SourceLine | None:
    """Where a module is called; of several calls the first one that a loss was computed from."""
    places = view.flow.of_node(module)
    used = view.flow.upstream(view.losses) if len(places) > 1 else set()
    chosen = [place for place in places if place in used] or places
    return view.flow.vertices[chosen[0]].source if chosen else None


def _line_of_use(view: View, node: str) -> SourceLine | None:
    """Where something is first computed from a node."""
    sinks = (link.place for place in view.flow.of_node(node) for link in view.flow.sinks.get(place, ()))
    return next((view.flow.vertices[sink].source for sink in sinks), None)


def _line_of_sibling(view: View, module: str) -> SourceLine | None:
    """Where the module is called that was made just before one that is not called: there it is missed.

    Of the first ones in their parent, the one after.
    """
    parent = module.rpartition(".")[0]
    paths = [path for path in view.modules if path.rpartition(".")[0] == parent]
    at = paths.index(module) if module in paths else 0
    for path in (*reversed(paths[:at]), *paths[at + 1 :]):
        if places := view.flow.of_node(path):
            return view.flow.vertices[places[0]].source
    return None


def line_of_loss(view: View, node: str = "") -> SourceLine | None:
    """Where the loss is computed that a node feeds, or is; of the first objective if it feeds none."""
    places = view.flow.of_node(node)
    reached = view.flow.downstream(places) if places else set()
    losses = [loss for loss in view.objectives if loss in reached] or view.objectives
    return next((view.flow.vertices[loss].source for loss in losses), None)


def line_of_bootstrapped(view: View, said: Place, loss: Place) -> SourceLine | None:
    """Where a target is made out of what a net said: between that and the loss that compares it."""
    sites = (site for site in sites_of(view, "bootstrapped") if said in site.before and loss in site.after)
    return next((site.source for site in sites), None)


def line_of_step(view: View, operation: str) -> SourceLine | None:
    """Where a step calls ``backward``, ``zero_grad`` or its ``optimizer step``."""
    return next((site.source for site in _steps(view) if site.operation == operation), None)


def line_of_call(step: Step, node: str) -> SourceLine | None:
    """Where the data enters that a node is computed from in a step: the call of the model, which has a mode.

    None if the step makes its data itself: then the recording knows that place instead.
    """
    flow = Flow(different_graphs([step]))
    behind = dict.fromkeys(flow.of_node(node))
    queue = list(behind)
    for place in queue:  # which grows meanwhile, the nearest first
        if flow.vertices[place].type == "input" and not flow.vertices[place].operation:
            return flow.vertices[place].source
        fresh = [link.place for link in flow.sources.get(place, ()) if link.place not in behind]
        behind |= dict.fromkeys(fresh)
        queue += fresh
    return None


def line_of_cut(view: View, source: Place, sink: Place) -> SourceLine | None:
    """Where the gradient's way between two places is cut: between them (last), or in what made the second one."""
    between = [site.source for site in sites_of(view, "cut") if source in site.before and sink in site.after]
    return between[-1] if between else view.flow.vertices[sink].source


def line_of_loss_of_numbers(view: View, place: Place) -> SourceLine | None:
    """Where what was computed from a place leaves torch, or ends without a name."""
    return next((site.source for site in sites_of(view, "cut") if place in site.before and not site.after), None)


SLOPES = frozenset(["log", "log2", "log10", "sqrt", "rsqrt", "reciprocal", "acos", "asin"])
"""What has an infinite slope, too, where it is infinite or ends."""


def line_at_edge(view: View, before: Iterable[str], after: Iterable[str], *, slope: bool = False) -> SourceLine | None:
    """The only line between some nodes that can make infinite numbers, or slopes, out of finite ones.

    Args:
        view: the steps.
        before, after: the nodes.
        slope: of several lines, the only one whose slope can be infinite.
    """
    sources, sinks = set(before), set(after)
    sites = [
        site
        for site in sites_of(view, "edge")
        if any(place.node in sources for place in site.before) and any(place.node in sinks for place in site.after)
    ]
    lines = {site.source for site in sites}
    if len(lines) > 1 and slope:
        lines = {site.source for site in sites if site.operation in SLOPES}
    return lines.pop() if len(lines) == 1 else None


def sites_of(view: View, kind: str) -> list[Site]:
    """The calls of a kind in the training steps."""
    return [site for site in view.flow.sites if site.kind == kind]


def _steps(view: View) -> list[Site]:
    return sites_of(view, "step")


def _is_at(places: Iterable[Place], node: str) -> bool:
    return any(place.node == node for place in places)
