"""Gradients that one loss left behind and that another optimizer used with those of its own loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.history import History, Values
from stepscope.analysis.optimizers import held_by
from stepscope.analysis.parameters import trainable
from stepscope.analysis.view import View

_LEAST, _EQUAL = 5, 1e-3
_FIRST = "gradient:backward 0"
"""Where losses have no groups: what a parameter got that has one gradient only, if losses are taken in their order."""


@dataclass(frozen=True)
class Leftover:
    """A parameter whose gradient is the sum of two losses' ones, although the first trains what lies before it.

    Attributes:
        node: the parameter; optimizers: those that hold it.
        left, own: the quantities: of the loss whose gradient was left over, and of its own.
        against: the cosine of both, in the median of the steps.
    """

    node: str
    optimizers: tuple[str, ...]
    left: str
    own: str
    against: float


def leftovers(view: View) -> Iterator[Leftover]:
    """All parameters with such gradients, in the order of the modules."""
    held = held_by(view)
    nodes = [parameter.node for parameter in trainable(view) if held.get(parameter.node)]
    given = {node: _parts(view, node) for node in nodes}
    for node in nodes:
        used, parts = view.history(node, "gradient"), given[node]
        if len(parts) != 2 or not _is_sum(used, list(parts.values())):
            continue
        behind = _behind(view, node)
        others = [
            set(given[other]) or {_FIRST}
            for other in nodes
            if other in behind and not set(held[other]) & set(held[node])
        ]
        for left, own in (tuple(parts), tuple(parts)[::-1]):
            if {left} in others and not any(own in names for names in others):
                yield Leftover(node, held[node], left, own, _cosine(used, parts[left], parts[own]))


def _behind(view: View, node: str) -> set[str]:
    """The nodes from which what the module of a parameter reads was computed."""
    return {place.node for place in view.flow.upstream(view.flow.of_node(view.nodes[node].module))}


def _parts(view: View, node: str) -> dict[str, History]:
    known = view.nodes.get(node)
    names = [name for name in known.quantities if name.startswith("gradient:")] if known else []
    return {name: view.history(node, name) for name in names}


def _is_sum(used: History, parts: list[History]) -> bool:
    """Whether the mean that was used is the sum of both means, which each have a part in it."""
    if len(used) < _LEAST or not all(np.array_equal(part.steps, used.steps) for part in parts):
        return False
    one, two = (part.of("mean") for part in parts)
    size = np.abs(one) + np.abs(two)
    telling = (size > 0) & (np.minimum(np.abs(one), np.abs(two)) > _EQUAL * size)
    return bool(telling.mean() > 0.5) and bool((np.abs(used.of("mean") - one - two) <= _EQUAL * size)[telling].all())


def _cosine(used: History, left: History, own: History) -> float:
    norms: list[Values] = [history.of("norm") for history in (used, left, own)]
    products = (norms[0] ** 2 - norms[1] ** 2 - norms[2] ** 2) / np.maximum(2 * norms[1] * norms[2], 1e-30)
    return float(np.median(products))
