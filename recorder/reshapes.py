"""Reshapes that were meant as a transposition: they move no numbers, and so cut samples, or moments, to pieces."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

Span = tuple[int, int]
"""A dimension as the steps that it makes in memory: from its stride to the stride of the next one outside of it."""


def mixes_samples(before: Sequence[int], after: Sequence[int]) -> bool:
    """Whether a reshape makes ``(batch, a, c)`` look like ``(a, batch, c)``, by shape alone.

    The first dimension comes back behind others that hold as many elements as those that followed it did. Reshapes
    that join or split dimensions in place, and those that leave the first one where it is, do not.
    """
    if len(before) < 2 or len(after) < 2 or before[0] == after[0] or before[0] < 2:
        return False
    if len(before) == 3 and len(after) == 2 and before[1] == after[0] and min(before) > 1:
        return after[1] == before[0] * before[2]  # states of layers, or directions, by samples
    samples = before[0]
    followed = [math.prod(before[1:end]) for end in range(2, len(before) + 1)]
    for place in range(1, len(after)):
        if after[place] == samples and math.prod(after[:place]) in followed and math.prod(after[:place]) > 1:
            behind = math.prod(after[place + 1 :])
            return behind > 1 or len(before) == len(after) == 2
    return False


def scrambles(before: Sequence[int], after: Sequence[int]) -> bool:
    """Whether a reshape that keeps the samples does the same to another dimension: heads split by a ``view``.

    A dimension comes back at another place, across the borders of what it was, where it is no part of any other one.
    """
    if len(before) < 3 or len(after) < 3 or before[0] != after[0]:
        return False
    old, new = list(spans(before[1:])), list(spans(after[1:]))
    lost = {outer // inner for inner, outer in old if outer > inner and (inner, outer) not in new}
    return any(
        outer // inner in lost and outer > inner and not any(_is_part(inner, outer, span) for span in old)
        for inner, outer in new
    )


def spans(shape: Sequence[int]) -> Iterator[Span]:
    """The spans of the dimensions of a shape, from the last one to the first."""
    inner = 1
    for size in reversed(shape):
        yield inner, inner * size
        inner *= size


def _is_part(inner: int, outer: int, of: Span) -> bool:
    return inner % of[0] == 0 and of[1] % outer == 0
