"""Long names, made short for where there is little room: names of tensors differ at their ends."""

from __future__ import annotations

from collections.abc import Sequence


def cut(name: str, most: int) -> str:
    """The end of a name that has more than ``most`` letters.

    >>> cut("model.blocks.3.attention.query", 16)
    '…attention.query'
    """
    return name if len(name) <= most else "…" + name[1 - most :]


def apart(names: Sequence[str]) -> list[str]:
    """The names without the parts at their ends that all of them share, as these do not tell them apart.

    >>> apart(["blocks.0.query", "blocks.1.query"])
    ['blocks.0', 'blocks.1']
    """
    parts = [name.split(".") for name in names]
    shortest = min(map(len, parts), default=0)
    shared = 0
    while len(names) > 1 and shared < shortest - 1 and len({part[-1 - shared] for part in parts}) == 1:
        shared += 1
    return [".".join(part[: len(part) - shared]) for part in parts]
