"""Where the layers of a frame stand, from left to right."""

from __future__ import annotations

from collections.abc import Sequence

from stepscope.viewer.graph.cells import Cell, Hop
from stepscope.viewer.graph.sizes import PADDING

NARROWEST_GUTTER, WIDEST_GUTTER = 29.0, 80.0
"""Room between two layers; the more the lines climb in it, the more there is."""
_EMPTY_GUTTER = 16.0


def set_places(cells: Sequence[Cell], hops: Sequence[Hop], layers: Sequence[Sequence[int]]) -> float:
    """Set ``x`` and ``width`` of all cells (``y`` is known), and return the width of the frame.

    The boxes of a layer get the width of the widest, so that their sides line up. The first and the last layer are for
    ports: they stand on the frame's sides.
    """
    gutters = _gutters(cells, hops, len(layers) - 1)
    if not layers[0]:
        gutters[0] = PADDING
    if not layers[-1]:
        gutters[-1] = max(PADDING, gutters[-1] if _turns(cells, hops, len(layers) - 2) else 0.0)
    sides = _touched(cells, hops)
    x = 0.0
    for number, layer in enumerate(layers):
        width = max((cells[cell].width for cell in layer), default=0.0)
        _place(cells, layer, x, width, sides)
        x += width + (gutters[number] if number < len(gutters) else 0.0)
    return x


def _place(
    cells: Sequence[Cell], layer: Sequence[int], x: float, width: float, sides: tuple[set[int], set[int]]
) -> None:
    """Put the cells of a layer side by side with its widest: in the middle, or near all that they are connected to."""
    heads, tails = sides
    widest_box = max((cells[cell].width for cell in layer if cells[cell].kind == "box"), default=0.0)
    for number in layer:
        cell = cells[number]
        if cell.kind == "lane":
            cell.width = width
        elif cell.kind == "box":
            cell.width = widest_box
        share = 0.5 + 0.5 * ((number in tails) - (number in heads))
        cell.x = x + (width - cell.width) * share


def _touched(cells: Sequence[Cell], hops: Sequence[Hop]) -> tuple[set[int], set[int]]:
    """The cells that lines reach from the left, and those that lines leave to the right."""
    return {hop.head for hop in hops if not hop.back}, {hop.tail for hop in hops if not hop.back}


def _gutters(cells: Sequence[Cell], hops: Sequence[Hop], count: int) -> list[float]:
    gutters = [_EMPTY_GUTTER] * count
    for hop in hops:
        tail, head = cells[hop.tail], cells[hop.head]
        climb = abs(tail.y + tail.touch_right(hop.source) - head.y - head.touch_left(hop.source))
        at = min(tail.layer, head.layer) - (hop.back and tail.kind == "lane" and head.kind != "lane")
        gutters[at] = max(gutters[at], min(NARROWEST_GUTTER + 0.16 * climb, WIDEST_GUTTER))
    return gutters


def _turns(cells: Sequence[Cell], hops: Sequence[Hop], layer: int) -> bool:
    return any(hop.back and cells[hop.tail].layer == layer for hop in hops)
