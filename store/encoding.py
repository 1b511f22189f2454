"""The rows of a step's detail as codings and streams; ``decoding`` is the way back. See FORMAT.md, "Codings"."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stepscope.store.coding_choice import CodedPart, Numbers, code_part
from stepscope.store.detail_table import HISTOGRAM
from stepscope.store.multiples import Scales
from stepscope.store.pages import Piece
from stepscope.store.records import TensorInfo
from stepscope.store.streams import no_codings

_IS_LITTLE = sys.byteorder == "little"


class CodedRows(NamedTuple):
    """``codings`` ``(3 parts, 3, rows)``; for each stream the pieces, one a row; the scales that choices mean."""

    codings: NDArray[np.int32]
    streams: list[list[Piece]]
    scales: list[np.float32]


def code_rows(
    tensors: Sequence[TensorInfo],
    histograms: Sequence[Numbers],
    statistics: Sequence[Numbers],
    samples: Sequence[Numbers],
) -> CodedRows:
    """Code the three parts of a step's rows; histograms stay as they are, there is little to gain."""
    scales = Scales()
    parts = [code_part(tensors, pieces, scales) for pieces in (statistics, samples)]
    streams = [
        [_little_endian(piece) for piece in pieces] for pieces in (histograms, *(part.numbers for part in parts))
    ]
    for extra in (*(part.differences for part in parts), *(part.choices for part in parts)):
        streams.append([b""] * len(tensors))
        for row, piece in extra.items():
            streams[-1][row] = _little_endian(piece)
    codings = np.stack([no_codings(len(tensors))[HISTOGRAM], *map(_codings, parts)])
    return CodedRows(codings, streams, scales.values)


def _codings(part: CodedPart) -> NDArray[np.int32]:
    distance = np.arange(len(part.coding), dtype=np.int32) - part.reference
    return np.stack([part.coding, distance, part.literals])


def _little_endian(piece: Numbers) -> Piece:
    if not piece.size:
        return b""
    return piece.data if _IS_LITTLE else piece.astype(piece.dtype.newbyteorder("<")).data
