"""Scores of a net that a loss only pushes apart: up for some samples, down for others, by the same force for ever."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stepscope.analysis.flow import Place
from stepscope.analysis.history import Values
from stepscope.analysis.layers import rms
from stepscope.analysis.view import View

_EVEN = 1e-5
"""How far the gradients of samples may differ, as a part of their size."""
_LEAST = 20


def free_scores(view: View, *, times: float, still: float) -> Iterator[tuple[Place, Values]]:
    """The outputs of nets that are pushed apart and have grown by ``times``, and by ``still`` since the middle.

    With the size of each in the steps. Any call of a net stands for all.
    """
    seen: set[str] = set()
    for loss in view.objectives:
        for link in view.flow.sources.get(loss, ()):
            node = link.place.node
            if link.differentiable and node not in seen and node in view.modules and _is_pushed_apart(view, node):
                seen.add(node)
                sizes = rms(view.history(node, role=link.place.role))
                if _grows(sizes, times, still):
                    yield link.place, sizes


def _is_pushed_apart(view: View, node: str) -> bool:
    """Whether the gradient is the same for all samples of a call, in all steps, and has both signs."""
    signs = set()
    for role in view.nodes[node].roles:
        history = view.history(node, "gradient", role=role)
        if not len(history):
            continue
        means = history.of("mean")
        if not np.all(history.of("std") <= _EVEN * np.abs(means)) or np.any(means == 0):
            return False
        signs |= set(np.sign(means).tolist())
    return len(signs) == 2


def _grows(sizes: Values, times: float, still: float) -> bool:
    if len(sizes) < _LEAST or not np.isfinite(sizes).all():
        return False
    first, middle, last = (float(np.median(part)) for part in (sizes[:3], *np.array_split(sizes, 3)[1:]))
    return last > times * first and last > still * middle
