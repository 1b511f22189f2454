"""The numbers of a row out of its pieces and those of the rows that it refers to. See FORMAT.md, "Codings"."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from stepscope.store.codings import CHOICE, COPY, DIFFERENCE, MOST_REFERENCES, PLAIN, from_choices, from_differences
from stepscope.store.errors import DamagedError
from stepscope.store.streams import CHOICES_OF, CODING, DIFFERENCES_OF, DISTANCE

_PieceOf = Callable[[int, int], bytes]


def decode(
    part: int,
    row: int,
    codings: NDArray[np.int32],
    scales: Sequence[np.float32] | NDArray[np.float32],
    piece_of: _PieceOf,
) -> bytes:
    """The bytes of a row of a part.

    Args:
        part, row: which.
        codings: ``(3 parts, 3, rows)``.
        scales: those of the step.
        piece_of: gives the bytes that a row has in a stream.

    Raises:
        DamagedError, ValueError, IndexError: what the block says makes no sense.
    """
    rows = _chain(part, row, codings)
    found = piece_of(part, rows[-1])
    for own in reversed(rows):
        coding = int(codings[part, CODING, own])
        if coding == DIFFERENCE:
            found = from_differences(_words(piece_of(DIFFERENCES_OF[part], own)), _words(found)).tobytes()
        elif coding == CHOICE:
            choices = np.frombuffer(piece_of(CHOICES_OF[part], own), np.uint8)
            has_reference = codings[part, DISTANCE, own] != 0
            reference = _words(found) if has_reference else np.zeros(len(choices), np.uint32)
            found = from_choices(choices, _words(piece_of(part, own)), reference, scales).tobytes()
    return found


def _chain(part: int, row: int, codings: NDArray[np.int32]) -> list[int]:
    """A row, the one that it refers to, the one that this refers to, ..."""
    rows = [row]
    while codings[part, CODING, rows[-1]] in (COPY, DIFFERENCE, CHOICE):
        distance = int(codings[part, DISTANCE, rows[-1]])
        if distance == 0:
            break
        rows.append(rows[-1] - distance)
        if not 0 <= rows[-1] < codings.shape[2] or len(rows) > MOST_REFERENCES:
            raise DamagedError(f"row {row} refers to rows that are not there, or to itself")
    if codings[part, CODING, rows[-1]] not in (PLAIN, CHOICE):
        raise DamagedError(f"row {row} refers to no row, or is coded in a way that is not known")
    return rows


def _words(raw: bytes) -> NDArray[np.uint32]:
    return np.frombuffer(raw, "<u4").astype(np.uint32)
