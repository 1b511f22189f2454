"""In how many of the training steps a call is odd: once may be chance, or a single batch."""

from __future__ import annotations

from collections.abc import Iterable

from stepscope.analysis.view import View
from stepscope.store import Step
from stepscope.store.records import Call


def calls_in(step: Step, kind: str, known: dict[bytes, tuple[Call, ...]]) -> list[Call]:
    """The calls of a kind in a step; graphs that were met are looked up in ``known``."""
    found: list[Call] = []
    for iteration in step.iterations:
        digest = step.graph_digest(iteration)
        if digest not in known:
            known[digest] = tuple(call for call in step.graph(iteration).calls if call.kind == kind)
        found += known[digest]
    return found


def occurrences(view: View, kind: str, steps: Iterable[Step] | None = None) -> list[list[Call]]:
    """The calls of a kind in each training step, or in each of some steps; empty lists if there are none anywhere."""
    known: dict[bytes, tuple[Call, ...]] = {}
    chosen = list(view.training if steps is None else steps)
    if not occurs(view, kind):
        return [[] for _ in chosen]
    return [calls_in(step, kind, known) for step in chosen]


def occurs(view: View, kind: str) -> bool:
    """Whether any step has such a call."""
    return any(site.kind == kind for site in view.all_flow.sites)
