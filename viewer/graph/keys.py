"""How overlays name tensors."""

from __future__ import annotations


def tensor_key(node: str, role: str, lag: int = 0) -> str:
    """The key of a tensor in an overlay; ``graph.key`` in the browser makes the same.

    Example:
        >>> tensor_key("memory", "new", 1)
        'memory\\nnew\\n1'
    """
    return f"{node}\n{role}\n{lag}"
