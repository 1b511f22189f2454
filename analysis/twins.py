"""Copies of modules that follow others on purpose: target networks, momentum encoders, teachers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stepscope.analysis.parameters import has_gradient, trainable
from stepscope.analysis.view import View


def is_copy(view: View, nodes: Sequence[str]) -> bool:
    """Whether each of these parameters has a twin elsewhere that learns and started from (almost) the same values."""
    learning = [parameter for parameter in trainable(view) if has_gradient(view, parameter.node)]
    shapes = {parameter.node: parameter.shape for parameter in trainable(view)}
    return bool(nodes) and all(
        any(
            twin.shape == shapes.get(node)
            and twin.node.rpartition(".")[2] == node.rpartition(".")[2]
            and _alike(view, node, twin.node)
            for twin in learning
        )
        for node in nodes
    )


def _alike(view: View, one: str, two: str) -> bool:
    first, second = view.history(one, training=False), view.history(two, training=False)
    if not len(first) or not len(second):
        return False
    names = ("mean", "std", "min", "max")
    scale = max(float(first.of("abs_max")[0]), 1e-12)
    return all(bool(np.abs(first.of(name)[0] - second.of(name)[0]) < 0.02 * scale) for name in names)
