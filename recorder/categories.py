"""Which samples of a batch are kept when the user says what category each belongs to."""

from __future__ import annotations

from collections.abc import Sequence


def balanced_samples(categories: Sequence[str], count: int) -> tuple[int, ...]:
    """Indices of ``count`` samples, taken in turn from each category, in the order of the batch.

    >>> balanced_samples(["a", "a", "a", "b"], 2)
    (0, 3)
    """
    waiting: dict[str, list[int]] = {}
    for index, category in enumerate(categories):
        waiting.setdefault(category, []).append(index)
    chosen: list[int] = []
    while len(chosen) < min(count, len(categories)):
        for indices in waiting.values():
            if indices and len(chosen) < count:
                chosen.append(indices.pop(0))
    return tuple(sorted(chosen))
