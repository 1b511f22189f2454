"""Values in a given order, as near as possible to what was wished for."""

from __future__ import annotations

from collections.abc import Sequence


def isotonic(wishes: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The growing values with the least weighted squares of differences to the wishes (pool adjacent violators).

    Args:
        wishes: the values wished for.
        weights: how much each wish counts; positive.

    Example:
        >>> isotonic([1.0, 4.0, 2.0], [1.0, 1.0, 1.0])
        [1.0, 3.0, 3.0]
    """
    pools: list[tuple[float, float, int]] = []
    for wish, weight in zip(wishes, weights, strict=True):
        value, total, size = wish, weight, 1
        while pools and pools[-1][0] > value:
            other, more, members = pools.pop()
            value = (value * total + other * more) / (total + more)
            total += more
            size += members
        pools.append((value, total, size))
    return [value for value, _, size in pools for _ in range(size)]
