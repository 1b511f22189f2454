"""Copies of modules that follow others on purpose: target networks, momentum encoders, teachers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stepscope.analysis.parameters import has_gradient, is_inside, trainable
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


class Copy(NamedTuple):
    """A module without gradients of its own that started with the weights of another one, which learns."""

    path: str
    original: str
    parameters: tuple[str, ...]


def copies(view: View) -> list[Copy]:
    """The topmost modules that are such copies."""
    held = _held(view)
    learning = {parameter.node for parameter in trainable(view) if has_gradient(view, parameter.node)}
    found: list[Copy] = []
    for path, own in held.items():
        if any(is_inside(path, copy.path) for copy in found) or any(node in learning for node, _ in own):
            continue
        if not any(len(shape) > 1 for _, shape in own):
            continue
        originals = (name for name, nodes in held.items() if name != path and _are_alike(view, own, nodes, learning))
        original = next(originals, None)
        if original is not None:
            found.append(Copy(path, original, tuple(node for node, _ in own)))
    return found


def _held(view: View) -> dict[str, list[tuple[str, tuple[int, ...]]]]:
    """Of each module the nodes and shapes of its own parameters and of those of all modules in it."""
    held: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    for module in view.trial.network:
        own = [(p.names[0], tuple(p.shape)) for p in module.parameters if p.recorded and not p.is_buffer]
        for path in (module.path, *_above(module.path)):
            held.setdefault(path, []).extend(own)
    return {path: own for path, own in sorted(held.items(), key=lambda entry: entry[0].count(".")) if own}


def _above(path: str) -> list[str]:
    names = path.split(".")
    return [".".join(names[:count]) for count in range(1, len(names))]


def _are_alike(
    view: View, own: list[tuple[str, tuple[int, ...]]], other: list[tuple[str, tuple[int, ...]]], learning: set[str]
) -> bool:
    """Whether parameters have the shapes and the first values of others, which learn."""
    if [shape for _, shape in own] != [shape for _, shape in other]:
        return False
    return all(node in learning and _alike(view, mine, node) for (mine, _), (node, _) in zip(own, other, strict=True))
