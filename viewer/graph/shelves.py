"""Cells that no line touches stand in rows of their own."""

from __future__ import annotations

from collections.abc import Sequence

from stepscope.viewer.graph.cells import Cell
from stepscope.viewer.graph.sizes import PADDING

_GAP = 14.0


def fill_shelves(cells: Sequence[Cell], *, left: float, top: float, width: float) -> tuple[float, float]:
    """Set the places of the cells, row by row, and return the right end and the bottom of what they cover.

    Args:
        cells: boxes and frames.
        left: where rows begin.
        top: where the first row begins.
        width: how long a row may be, at least; with many cells the rows are longer, so that they are not too many.
    """
    area = sum((cell.width + _GAP) * (cell.height + _GAP) for cell in cells)
    longest = max(width, (2.5 * area) ** 0.5, max(cell.width for cell in cells))
    x, right, bottom = left, left, top
    for cell in cells:
        if x > left and x + cell.width > left + longest:
            x, top = left, bottom + _GAP
        cell.x, cell.y = x, top
        x += cell.width + _GAP
        right, bottom = max(right, cell.x + cell.width), max(bottom, top + cell.height)
    return right + PADDING, bottom
