"""Small keys that say what each part of the page depends on: a part is computed again when its key changes."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

from stepscope.analysis.overview import continued
from stepscope.store import Group, Trial
from stepscope.store.errors import StoreError
from stepscope.viewer.page_state import NEEDS_STEPS, PageState
from stepscope.viewer.selection import Selection, to_json
from stepscope.viewer.views.moment import moment

Key: TypeAlias = "dict[str, Any] | None"
PARTS = ("graph", "table", "node", "time", "page", "trial", "findings")


def keys_of(state: PageState, group: Group | None, size: tuple[int, int]) -> dict[str, Key]:
    """The key of each part; None for a part that is not on the screen."""
    keys: dict[str, Key] = dict.fromkeys(PARTS)
    selection = state.resolved.selection
    if group is None or not selection.trial or (state.welcome is not None and selection.view in NEEDS_STEPS):
        return keys
    try:
        trial = group[selection.trial]
        versions = _versions(group, selection)
    except StoreError:
        return keys
    keys["trial"] = {"trial": selection.trial, "nodes": len(trial.nodes)}
    keys["findings"] = {"trial": selection.trial, "compare": selection.compare, "looked": diagnosed_at(trial)}
    keys["time"] = _pick(selection, "trial", "compare", "kind") | versions
    if selection.view != "inspect":
        keys["page"] = _page(selection) | versions
        return keys
    keys["graph"] = _graph(selection, group, size)
    # What was recorded of a step changes only if training goes back behind it.
    keys["table"] = _pick(selection, *_TABLE) | {"restarts": trial.restarts}
    keys["node"] = _pick(selection, *_TABLE, "node", "role", "lag", "kind") | versions
    return keys


_TABLE = ("trial", "compare", "step", "iteration", "quantity", "sample", "color", "statistic")


def _pick(selection: Selection, *names: str) -> dict[str, Any]:
    return {name: getattr(selection, name) for name in names}


def _versions(group: Group, selection: Selection) -> dict[str, int]:
    versions = {"version": group[selection.trial].version}
    if selection.compare:
        versions["other_version"] = _version(group, selection.compare)
    return versions


def _version(group: Group, name: str) -> int:
    try:
        other: Trial = group[name]
    except StoreError:
        return -1
    return other.version


def _graph(selection: Selection, group: Group, size: tuple[int, int]) -> Key:
    try:
        now = moment(selection, group)
        if now is None:
            return None
        later = sorted(continued(now.step))
    except StoreError:
        return None
    opened = None if selection.opened is None else list(selection.opened)
    digest = now.step.graph_digest(now.iteration).hex()
    return {"trial": selection.trial, "digest": digest, "opened": opened, "later": later, "size": list(size)}


def diagnosed_at(trial: Trial) -> str:
    """Changes whenever a trial is worth another diagnosis: at its end, and each time it has grown by a tenth."""
    size = len(trial.steps)
    return f"{trial.state}, {int(10 * math.log(size)) if size else 0}"


def keys_of_findings(trial: Trial, other: Trial | None) -> dict[str, Any]:
    """What the page of the findings depends on."""
    return {which.name: [which.version, diagnosed_at(which)] for which in (trial, other) if which is not None}


def _page(selection: Selection) -> dict[str, Any]:
    if selection.view == "custom":
        return to_json(selection)
    names = {
        "steps": ("quantity", "sample", "statistic", "kind", "node", "role", "pinned", "mode", "log", "step"),
        "scalars": ("kind",),
        "network": ("step",),
    }.get(selection.view, ())
    return _pick(selection, "view", "trial", "compare", *names)
