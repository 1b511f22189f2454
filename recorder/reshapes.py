"""Reshapes that were meant as a transposition: they move no numbers, and so cut the samples of a batch to pieces."""

from __future__ import annotations

import math
from collections.abc import Sequence


def mixes_samples(before: Sequence[int], after: Sequence[int]) -> bool:
    """Whether a reshape makes ``(batch, a, c)`` look like ``(a, batch, c)``, by shape alone.

    The first dimension comes back behind others that hold as many elements as those that followed it did. Reshapes
    that join or split dimensions in place, and those that leave the first one where it is, do not.
    """
    if len(before) < 2 or len(after) < 2 or before[0] == after[0] or before[0] < 2:
        return False
    samples = before[0]
    followed = [math.prod(before[1:end]) for end in range(2, len(before) + 1)]
    for place in range(1, len(after)):
        if after[place] == samples and math.prod(after[:place]) in followed and math.prod(after[:place]) > 1:
            behind = math.prod(after[place + 1 :])
            return behind > 1 or len(before) == len(after) == 2
    return False
