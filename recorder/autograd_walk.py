"""What the autograd graph knows of where a tensor came from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def mark(function: Any, key: str, node: int) -> None:
    """Write the node of a tensor on its ``grad_fn``, which is not kept alive by it, nor what it saved."""
    function.metadata[key] = node


def mark_once(function: Any, key: str, node: int) -> None:
    """Write a node on a function that has none yet."""
    function.metadata.setdefault(key, node)


def named_ancestors(start: Any, key: str, known: Callable[[torch.Tensor], int | None]) -> tuple[int, ...]:
    """The nearest known nodes behind an autograd function, found without recursion.

    Args:
        start: a ``grad_fn``, or None.
        key: that under which functions of known tensors were marked.
        known: tells the node of a leaf (a parameter), or None.
    """
    found: dict[int, None] = {}
    seen = {start}
    stack = [start]
    while stack:
        function = stack.pop()
        if function is None:
            continue
        for parent, _ in function.next_functions:
            if parent is None or parent in seen:
                continue
            seen.add(parent)
            node = _node_of(parent, key, known)
            if node is None:
                stack.append(parent)
            else:
                found[node] = None
    return tuple(found)


def _node_of(function: Any, key: str, known: Callable[[torch.Tensor], int | None]) -> int | None:
    marked: int | None = function.metadata.get(key)
    if marked is not None:
        return marked
    leaf = getattr(function, "variable", None)
    return None if leaf is None else known(leaf)
