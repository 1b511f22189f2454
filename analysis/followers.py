"""Copies of nets that are to follow them, step by step, and are what is evaluated: moving averages of weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from stepscope.analysis.flow import Place
from stepscope.analysis.history import Values
from stepscope.analysis.neurons import neurons_of
from stepscope.analysis.parameters import is_inside, is_unchanged
from stepscope.analysis.twins import Copy, copies
from stepscope.analysis.view import View
from stepscope.store import Step


class Follower(NamedTuple):
    """A copy that moves, and that losses of another kind of step than the training's are computed from.

    ``pairs`` are its parameters with those that they follow; ``loss`` is evaluated in steps of ``kind``.
    """

    copy: Copy
    pairs: tuple[tuple[str, str], ...]
    loss: Place
    kind: str


def followers(view: View) -> Iterator[Follower]:
    """All of them that are no part of the training itself, as target networks and teachers are."""
    used = view.flow.upstream(view.losses)
    for copy in copies(view):
        places = [place for place in view.all_flow.vertices if is_inside(place.node, copy.path)]
        if any(place in used for place in places) or all(is_unchanged(view, node) for node in copy.parameters):
            continue
        evaluated = _evaluated(view, places)
        if evaluated is not None:
            yield Follower(copy, tuple(zip(copy.parameters, _own(view, copy.original), strict=False)), *evaluated)


def way_gone(view: View, follower: Follower) -> float:
    """The part of the way of the net that its copy has gone since the second recorded step; 1 if nothing is known."""
    steps = [view.training[1], view.training[-1]]
    gone = np.array([[_distance(steps, node) for node in pair] for pair in follower.pairs])
    total = np.sqrt(np.square(gone).sum(0)) if len(gone) else np.ones(2)
    return float(total[0] / total[1]) if np.isfinite(total).all() and total[1] > 0 else 1.0


def still_buffers(view: View, follower: Follower) -> list[str]:
    """The running statistics of a copy that are the same in all steps, while those of the net change."""
    path, original = follower.copy.path, follower.copy.original
    found = []
    for name, node in view.nodes.items():
        if node.type != "buffer" or "running_" not in name or not is_inside(name, path):
            continue
        ends = name.removeprefix(path).removeprefix(".module")
        other = next((o for o in view.nodes if is_inside(o, original) and o.removeprefix(original) == ends), "")
        if other and not _changes(view, name) and _changes(view, other):
            found.append(name)
    return found


def _changes(view: View, node: str) -> bool:
    history = view.history(node)
    return len(history) < 3 or not history.is_constant


def _evaluated(view: View, places: list[Place]) -> tuple[Place, str] | None:
    behind = view.all_flow.downstream(places)
    losses = [place for place in view.all_flow.of_type("loss") if place in behind]
    kinds = sorted({step.kind for step in view.steps} - view.training_kinds)
    return (losses[-1], kinds[0]) if losses and len(kinds) == 1 else None


def _own(view: View, path: str) -> list[str]:
    return [
        parameter.names[0]
        for module in view.trial.network
        if is_inside(module.path, path)
        for parameter in module.parameters
        if parameter.recorded and not parameter.is_buffer
    ]


def _distance(steps: list[Step], node: str) -> float:
    """How far the kept numbers of a parameter are apart in two steps."""
    first, last = (_kept(step, node) for step in steps)
    return np.nan if first is None or last is None or first.shape != last.shape else float(np.linalg.norm(last - first))


def _kept(step: Step, node: str) -> Values | None:
    neurons = neurons_of(step, Place(node, "parameter"))
    return None if neurons is None else neurons.samples.astype(np.float64)
