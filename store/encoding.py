"""The rows of a step's detail as codings and streams; ``decoding`` is the way back. See FORMAT.md, "Codings"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stepscope.store.coding_choice import CodedPart, Numbers, code_part, copies_only
from stepscope.store.multiples import Scales
from stepscope.store.pages import Piece
from stepscope.store.records import TensorInfo


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
    """Code the three parts of a step's rows."""
    scales = Scales()
    parts = (copies_only(histograms), code_part(tensors, statistics, scales), code_part(tensors, samples, scales))
    columns = [part.numbers for part in parts]
    columns += [part.differences for part in parts[1:]]
    columns += [part.choices for part in parts[1:]]
    streams = [[_little_endian(piece) for piece in column] for column in columns]
    return CodedRows(np.stack([_codings(part) for part in parts]), streams, scales.values)


def _codings(part: CodedPart) -> NDArray[np.int32]:
    distance = np.arange(len(part.coding), dtype=np.int32) - part.reference
    return np.stack([part.coding, distance, part.literals])


def _little_endian(piece: Numbers) -> Piece:
    return b"" if not piece.size else np.ascontiguousarray(piece, piece.dtype.newbyteorder("<")).data
