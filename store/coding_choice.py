"""Finds for each row of a step the coding that makes it smallest: what repeats, what is a multiple, what is near.

Nothing is remembered from one step to the next, and every row finds its references within its own step, so that
damage does not spread.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepscope.store.codings import CHOICE, COPY, DIFFERENCE, LITERAL, PLAIN, Words
from stepscope.store.codings import differences as differences_of
from stepscope.store.multiples import Scales, choices_of, promising
from stepscope.store.records import TensorInfo
from stepscope.store.sampled import sampled

SMALL = 8
"""Rows of fewer numbers stay as they are."""
_SHORT = 32
_WORTH_SEARCHING = 256
"""Rows of fewer numbers, and those of a size that have fewer in all, are only ever copied: a search would cost more."""

KEY_ROWS = 8
"""Of the iterations of a tensor, one in so many is no difference: reading one does not mean reading all before it."""

_WORD_BITS = 25.5
"""What a number costs that is written as it is: about six bits of the exponent can be saved."""
_DIFFERENCE_BITS = 2.0
_CHOICE_BITS = 1.0
_DEEPEST = 16
"""How many rows at most a row may hang on, one behind the other."""

Numbers = NDArray[Any]
_Link = tuple[int, int]
_NOTHING: Numbers = np.zeros(0, np.uint8)


@dataclass(frozen=True)
class CodedPart:
    """What becomes of the rows of a part.

    ``coding``, ``reference``, ``literals`` and ``numbers`` have one entry a row; ``differences`` and ``choices`` have
    the pieces of those rows that have any.
    """

    coding: NDArray[np.int32]
    reference: NDArray[np.int32]
    literals: NDArray[np.int32]
    numbers: list[Numbers]
    differences: dict[int, Numbers]
    choices: dict[int, Numbers]


def code_part(
    tensors: Sequence[TensorInfo],
    pieces: Sequence[Numbers],
    scales: Scales,
    *,
    allowed: Collection[int] = (COPY, DIFFERENCE, CHOICE),
) -> CodedPart:
    """Choose codings for flat arrays of numbers, one a row; those that are not 4 bytes wide are only ever copied."""
    coder = _Coder(tensors, pieces)
    if COPY in allowed:
        coder.find_copies()
    for group in coder.groups():
        if DIFFERENCE in allowed:
            coder.find_differences(group)
        if CHOICE in allowed:
            coder.find_multiples(group, scales)
    return coder.finish()


class _Group:
    """Rows of equally many numbers, as words."""

    def __init__(self, rows: Sequence[int], pieces: Sequence[Numbers]) -> None:
        self.rows = rows
        self._words = np.stack([pieces[row].view(np.uint32) for row in rows])
        self._places = {row: place for place, row in enumerate(rows)}

    @property
    def size(self) -> int:
        """Numbers a row."""
        return int(self._words.shape[1])

    def words(self, rows: Sequence[int]) -> Words:
        """``(k, n)`` of these rows."""
        found: Words = self._words[[self._places[row] for row in rows]]
        return found

    def few_words(self, rows: Sequence[int]) -> Words:
        """Some of each row."""
        places = np.array([self._places[row] for row in rows])
        found: Words = self._words[places[:, None], sampled(self._words.shape[1])]
        return found


class _Coder:
    def __init__(self, tensors: Sequence[TensorInfo], pieces: Sequence[Numbers]) -> None:
        self._tensors = tensors
        self._pieces = pieces
        self._coding = [PLAIN] * len(pieces)
        self._reference = list(range(len(pieces)))
        self._bits = [_WORD_BITS * piece.size for piece in pieces]
        self._extra: dict[int, Numbers] = {}
        self._is_gradient = [tensor.quantity.startswith("gradient") for tensor in tensors]
        self._has_iterations = any(tensor.iteration > 0 for tensor in tensors)

    def find_copies(self) -> None:
        """Rows whose bytes an earlier row has too."""
        first: dict[tuple[int, bytes], int] = {}
        for row, piece in enumerate(self._pieces):
            if piece.size >= SMALL:
                source = first.setdefault((piece.itemsize, piece.tobytes()), row)
                if source != row:
                    self._take(row, source, COPY, 0)

    def groups(self) -> Iterator[_Group]:
        rows: dict[int, list[int]] = {}
        for row, piece in enumerate(self._pieces):
            if piece.size >= _SHORT and piece.itemsize == 4:
                rows.setdefault(piece.size, []).append(row)
        for size, own in rows.items():
            if size * len(own) >= _WORTH_SEARCHING:
                yield _Group(own, self._pieces)

    def find_differences(self, group: _Group) -> None:
        """Rows near those of the same tensor in the iteration before."""
        links = [link for link in self._earlier_iterations(group.rows) if self._coding[link[0]] == PLAIN]
        if not links:
            return
        own, before = zip(*links, strict=True)
        few = differences_of(group.few_words(own), group.few_words(before))
        costs = group.size * (_bit_lengths(few).mean(axis=1) + _DIFFERENCE_BITS)
        better = [place for place, row in enumerate(own) if costs[place] < self._bits[row]]
        if better:
            rows, sources = [own[place] for place in better], [before[place] for place in better]
            found = differences_of(group.words(rows), group.words(sources))
            for place, row, source, words in zip(better, rows, sources, found, strict=True):
                self._take(row, source, DIFFERENCE, costs[place])
                self._extra[row] = words

    def find_multiples(self, group: _Group, scales: Scales) -> None:
        """Rows of zeros, and of multiples of what a neighbour has."""
        own, near = zip(*self._neighbours([row for row in group.rows if self._coding[row] != COPY]), strict=True)
        places, ratios = promising(group.few_words(own), group.few_words(near))
        rows, sources = [own[place] for place in places], [near[place] for place in places]
        if not rows:
            return
        found = choices_of(group.words(rows), group.words(sources), ratios, scales)
        literals = np.count_nonzero(found == LITERAL, axis=1)
        costs = _WORD_BITS * literals + _CHOICE_BITS * group.size
        for row, source, choices, cost in zip(rows, sources, found, costs.tolist(), strict=True):
            if cost < self._bits[row]:
                self._take(row, source, CHOICE, cost)
                self._extra[row] = choices

    def finish(self) -> CodedPart:
        coding, reference = np.array(self._coding, np.int32), np.array(self._reference, np.int32)
        too_deep = _too_deep(reference)
        coding[too_deep], reference[too_deep] = PLAIN, np.flatnonzero(too_deep)
        numbers, literals = list(self._pieces), np.zeros(len(self._pieces), np.int32)
        differences: dict[int, Numbers] = {}
        choices: dict[int, Numbers] = {}
        for row in np.flatnonzero(coding).tolist():
            numbers[row] = _NOTHING
            if coding[row] == DIFFERENCE:
                differences[row] = self._extra[row]
            elif coding[row] == CHOICE:
                choices[row] = self._extra[row]
                numbers[row] = self._pieces[row][choices[row] == LITERAL]
                literals[row] = numbers[row].size
        return CodedPart(coding, reference, literals, numbers, differences, choices)

    def _take(self, row: int, source: int, coding: int, cost: float) -> None:
        self._coding[row], self._reference[row], self._bits[row] = coding, source, cost

    def _earlier_iterations(self, rows: Sequence[int]) -> Iterator[_Link]:
        last: dict[tuple[str, str, str], _Link] = {}
        for row in rows if self._has_iterations else ():
            tensor = self._tensors[row]
            key = (tensor.node, tensor.role, tensor.quantity)
            before, number = last.get(key, (row, -1))
            last[key] = row, number + 1
            if (number + 1) % KEY_ROWS:
                yield row, before

    def _neighbours(self, rows: Sequence[int]) -> Iterator[_Link]:
        """Each row with the one that flows into it: values come from the row before, gradients from the row behind."""
        last: dict[tuple[str, int], int] = {}
        for row in rows:
            tensor = self._tensors[row]
            key = (tensor.quantity, tensor.iteration)
            before, last[key] = last.get(key), row
            if not self._is_gradient[row]:
                yield row, row if before is None else before
            elif before is not None:
                yield before, row
        yield from ((row, row) for row in last.values() if self._is_gradient[row])


def _too_deep(reference: NDArray[np.int32]) -> NDArray[np.bool_]:
    """The rows that hang on too many others or, by way of others, on themselves."""
    depth = np.zeros(len(reference), np.int32)
    leans = reference != np.arange(len(reference))
    for _ in range(_DEEPEST + 1):
        depth = np.where(leans, depth[reference] + 1, 0)
    return np.asarray(depth > _DEEPEST)


def _bit_lengths(words: Words) -> NDArray[np.int32]:
    """Roughly how many bits words have, 0 to 32."""
    lengths: NDArray[np.int32] = (words.astype(np.float32).view(np.int32) >> 23) - 126
    return np.maximum(lengths, 0)
