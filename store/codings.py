"""How a row's numbers may be written with the help of another row's. See FORMAT.md, "Codings".

All of it works on the words (``u4``) of floats, never on their values alone: the bits that went in come out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]
Choices = NDArray[np.uint8]

PLAIN, COPY, DIFFERENCE, CHOICE = range(4)
"""The numbers themselves; those of another row; differences to them; for each number what it is made of."""

LITERAL, ZERO, MINUS_ZERO, FIRST_SCALE = range(4)
"""What a choice says: the next number of the piece; 0; -0; from here on, a scale times the other row's number."""

MOST_SCALES = 256 - FIRST_SCALE
MOST_REFERENCES = 64
"""A row whose numbers hang on more other rows than this, one behind the other, is damaged."""

_SIGN = np.uint32(1 << 31)


def differences(words: Words, reference: Words) -> Words:
    """How far floats are from others, counted in floats between them; small distances are small words."""
    distance = (_ordered(words) - _ordered(reference)).view(np.int32)
    return ((distance << 1) ^ (distance >> 31)).view(np.uint32)


def from_differences(found: Words, reference: Words) -> Words:
    """The floats that ``differences`` were taken of."""
    distance = (found >> np.uint32(1)) ^ (np.uint32(0) - (found & np.uint32(1)))
    return _unordered(distance + _ordered(reference))


def from_choices(
    choices: Choices, literals: Words, reference: Words, scales: Sequence[np.float32] | NDArray[np.float32]
) -> Words:
    """The floats that choices stand for."""
    factors = np.zeros(256, np.float32)
    factors[FIRST_SCALE : FIRST_SCALE + len(scales)] = scales
    with np.errstate(all="ignore"):
        words = (factors[choices] * reference.view(np.float32)).view(np.uint32)
    words[choices == ZERO] = 0
    words[choices == MINUS_ZERO] = _SIGN
    words[choices == LITERAL] = literals
    return words


def _ordered(words: Words) -> Words:
    """Words that are in the order of their floats."""
    return words ^ ((words.view(np.int32) >> 31).view(np.uint32) | _SIGN)


def _unordered(words: Words) -> Words:
    return words ^ ((~words.view(np.int32) >> 31).view(np.uint32) | _SIGN)
