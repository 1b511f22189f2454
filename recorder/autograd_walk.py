"""What the autograd graph knows of where a tensor came from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def named_ancestors(
    start: Any, nodes_of: dict[Any, int], known: Callable[[torch.Tensor], int | None]
) -> tuple[int, ...]:
    """The nearest known nodes behind an autograd function, found without recursion.

    Args:
        start: a ``grad_fn``, or None.
        nodes_of: the node of each named tensor, by its ``grad_fn``.
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
            node = nodes_of.get(parent)
            if node is None and (leaf := getattr(parent, "variable", None)) is not None:
                node = known(leaf)
            if node is None:
                stack.append(parent)
            else:
                found[node] = None
    return tuple(found)
