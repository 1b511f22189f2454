"""What the browser is told after each wish: the resolved selection, the controls' options, badges and sentences."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from stepscope.store import Group, Trial
from stepscope.store.errors import StoreError
from stepscope.store.records import STATISTICS
from stepscope.viewer.markup import Markup, el
from stepscope.viewer.resolve import Option, Resolved, quantity_label, resolve, role_key, statistics_of
from stepscope.viewer.selection import ALL, Selection, to_json, to_query
from stepscope.viewer.source import Source
from stepscope.viewer.views import status
from stepscope.viewer.views.column import shown_statistic
from stepscope.viewer.views.drawing import revealed
from stepscope.viewer.views.graph_overlay import BY_CHANGE, BY_TYPE

ANY_KIND = "\u2217"
"""The value of the control that means: steps of all kinds."""

NEEDS_STEPS = ("findings", "inspect", "steps")
"""Pages that a trial without steps cannot fill."""


@dataclass(frozen=True)
class PageState:
    """One answer to a wish.

    ``options`` and ``values`` are the controls' by name; ``welcome`` replaces the page if there is nothing to show.
    """

    resolved: Resolved
    options: dict[str, list[Option]] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    neighbours: dict[str, int | None] = field(default_factory=dict)
    badge: Markup = field(default_factory=lambda: el("span"))
    notices: Markup = field(default_factory=lambda: el("div"))
    welcome: Markup | None = None
    live: bool = False
    nodes: tuple[Option, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For the browser's store."""
        return {
            "selection": to_json(self.resolved.selection),
            "query": to_query(self.resolved.selection),
            "options": {name: [list(option) for option in options] for name, options in self.options.items()},
            "values": self.values,
            "neighbours": self.neighbours,
            "badge": self.badge,
            "notices": self.notices,
            "welcome": self.welcome,
            "live": self.live,
            "recorded": self.resolved.recorded,
        }


def page_state(source: Source, wish: Selection, changed: str, size: tuple[int, int]) -> PageState:
    """Answer a wish.

    Args:
        source: the recordings.
        wish: what was asked for.
        changed: the field that the person changed last.
        size: of the graph's panel, in pixels.
    """
    group = source.group
    if group is None or not group.names:
        exists = group is not None
        empty = wish.with_changes(trial="", compare="", step=None, iteration=None)
        return PageState(Resolved(empty), welcome=status.no_trials(source.name, exists))
    resolved = resolve(wish, group, changed=changed)
    selection = resolved.selection
    try:
        trial = group[selection.trial]
    except StoreError as error:
        options = {"trial": [(name, name) for name in group.names]}
        return PageState(
            resolved, options, {"trial": selection.trial}, welcome=status.unreadable(selection.trial, str(error))
        )
    if changed != "opened":
        selection = revealed(selection, group, size)
        resolved = replace(resolved, selection=selection)
    nodes = tuple((node.name, node.name) for node in trial.nodes)  # before the notices: damage is met by reading
    return PageState(
        resolved,
        _options(group, trial, resolved),
        _values(selection),
        _neighbours(trial, selection),
        status.badge(trial),
        status.notices(trial, resolved.notice, group.problems),
        status.no_steps(trial) if len(trial.steps) == 0 and selection.view in NEEDS_STEPS else None,
        trial.state == "running",
        nodes,
    )


def _options(group: Group, trial: Trial, resolved: Resolved) -> dict[str, list[Option]]:
    selection = resolved.selection
    names = [(name, name) for name in group.names]
    painted = [(BY_TYPE, "tensor type"), *((name, name) for name in statistics_of(selection.sample))]
    if selection.compare:
        painted.insert(1, (BY_CHANGE, f"change from {selection.compare}"))
    statistics = [*statistics_of(selection.sample)]
    if selection.quantity == "update" and selection.sample == ALL:
        statistics.append("ratio")
    roles = list(resolved.roles) or [("", "–")]
    return {
        "trial": names,
        "compare": [option for option in names if option[0] != selection.trial],
        "kind": [(ANY_KIND, "all kinds"), *((kind, kind) for kind in trial.kinds if kind)],
        "iteration": [(str(i), str(i)) for i in resolved.iterations],
        "quantity": [(name, quantity_label(name)) for name in resolved.quantities],
        "sample": list(resolved.samples),
        "role": roles,
        "color": painted,
        "statistic": [(name, name) for name in statistics if name in (*STATISTICS, "ratio")],
    }


def _values(selection: Selection) -> dict[str, str]:
    statistics = (*statistics_of(selection.sample), "ratio")
    return {
        "trial": selection.trial,
        "compare": selection.compare,
        "kind": selection.kind or ANY_KIND,
        "iteration": "" if selection.iteration is None else str(selection.iteration),
        "quantity": selection.quantity,
        "sample": selection.sample,
        "role": role_key(selection.role, selection.lag) if selection.role else "",
        "color": _painted(selection),
        "statistic": selection.statistic if selection.statistic in statistics else "std",
    }


def _painted(selection: Selection) -> str:
    if selection.color == BY_TYPE or (selection.color == BY_CHANGE and selection.compare):
        return selection.color
    return BY_TYPE if selection.color == BY_CHANGE else shown_statistic(selection.color, selection.sample)


def _neighbours(trial: Trial, selection: Selection) -> dict[str, int | None]:
    """The numbers of the previous and the next recorded step of the chosen kind, the first and the last."""
    if selection.step is None:
        return {}
    steps = trial.steps
    if selection.kind:
        kinds = np.array(trial.step_kinds, dtype=object)
        steps = steps[kinds == selection.kind]
    before, after = steps[steps < selection.step], steps[steps > selection.step]
    return {
        "previous": int(before[-1]) if len(before) else None,
        "next": int(after[0]) if len(after) else None,
        "first": int(steps[0]),
        "last": int(steps[-1]),
    }
