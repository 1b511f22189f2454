"""The page of what the user logged: one small chart a curve, on a shared axis of steps."""

from __future__ import annotations

from collections import defaultdict

from stepscope.store import Trial
from stepscope.store.errors import StoreError
from stepscope.viewer.chart_parts import Curve, Figure
from stepscope.viewer.figures import empty
from stepscope.viewer.selection import Selection
from stepscope.viewer.small_multiples import small_multiples
from stepscope.viewer.theme import LINES

_MOST = 60


def scalars(trial: Trial, other: Trial | None, selection: Selection) -> tuple[Figure, str]:
    """One chart a group (curves without a group have their own), and a sentence."""
    names = trial.scalar_names
    if not names:
        return empty('nothing was logged; recorder.scalar("accuracy", 0.93) draws a curve here'), ""
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for group, name in names:
        groups[group or name].append((group, name))
    charts = [(title, _curves(trial, other, keys, selection.kind)) for title, keys in list(groups.items())[:_MOST]]
    more = f" (the first {_MOST} of {len(groups)} charts)" if len(groups) > _MOST else ""
    return small_multiples(charts, selection.step), f"{len(names)} curves{more}. Click to go to a step."


def _curves(trial: Trial, other: Trial | None, keys: list[tuple[str, str]], kind: str) -> list[Curve]:
    found = []
    for index, (group, name) in enumerate(keys):
        for which in (trial, other):
            curve = _curve(which, group, name, kind, LINES[index % len(LINES)], dotted=which is other)
            if curve is not None:
                found.append(curve)
    return found


def _curve(trial: Trial | None, group: str, name: str, kind: str, color: str, *, dotted: bool) -> Curve | None:
    if trial is None:
        return None
    try:
        series = trial.scalars(name, group=group, kind=kind or None)
        if not len(series.steps):  # what is logged outside of steps has no kind
            series = trial.scalars(name, group=group)
    except StoreError:
        return None
    return Curve(f"{name} ({trial.name})", *series, color, dotted=dotted)
