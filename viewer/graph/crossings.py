"""The order of the cells in each layer: few lines should cross."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence

from stepscope.viewer.graph.cells import Cell, Hop

SWEEPS = 8

Neighbours = list[list[tuple[int, float, float]]]
"""For each cell, its neighbours on one side: which, and where lines touch that one and this one (0 top, 1 bottom)."""


def order_layers(cells: Sequence[Cell], hops: Sequence[Hop], layers: list[list[int]]) -> list[list[int]]:
    """The layers with their cells in an order with few crossings (barycenters, Sugiyama et al. 1981).

    Args:
        cells: all cells of a frame.
        hops: the pieces of lines between them.
        layers: the cells of each layer, in an order to start from.
    """
    left, right = neighbours(cells, hops)
    best, fewest = layers, count_crossings(layers, right)
    now = layers
    for sweep in range(SWEEPS):
        if not fewest:
            break
        now = _sweep(now, left if sweep % 2 == 0 else right, forward=sweep % 2 == 0)
        crossings = count_crossings(now, right)
        if crossings < fewest:
            best, fewest = now, crossings
    return best


def neighbours(cells: Sequence[Cell], hops: Sequence[Hop]) -> tuple[Neighbours, Neighbours]:
    """What each cell is connected to in the layer left of it, and in the layer right of it."""
    left: Neighbours = [[] for _ in cells]
    right: Neighbours = [[] for _ in cells]
    for hop in hops:
        west, east = (hop.head, hop.tail) if hop.back else (hop.tail, hop.head)
        if cells[west].layer == cells[east].layer:
            continue
        leaves = _share(cells[west].touch_right(hop.source), cells[west].height)
        arrives = _share(cells[east].touch_left(hop.source), cells[east].height)
        left[east].append((west, leaves, arrives))
        right[west].append((east, arrives, leaves))
    return left, right


def count_crossings(layers: Sequence[Sequence[int]], right: Neighbours) -> int:
    """How many pairs of hops cross, if all were straight."""
    place = _places(layers)
    crossings = 0
    for layer in layers:
        ends = sorted(
            (place[cell] + own, place[other] + theirs) for cell in layer for other, theirs, own in right[cell]
        )
        seen: list[float] = []
        for _, end in ends:
            crossings += len(seen) - bisect_right(seen, end)
            insort(seen, end)
    return crossings


def _share(touch: float, height: float) -> float:
    return touch / height if height else 0.5


def _places(layers: Sequence[Sequence[int]]) -> dict[int, int]:
    return {cell: place for layer in layers for place, cell in enumerate(layer)}


def _sweep(layers: list[list[int]], beside: Neighbours, *, forward: bool) -> list[list[int]]:
    """Order each layer by the mean place of what its cells are connected to in the layer before."""
    result = [list(layer) for layer in layers]
    place = _places(result)
    for layer in result if forward else reversed(result):
        wish = {
            cell: sum(place[other] + theirs for other, theirs, _ in beside[cell]) / len(beside[cell])
            for cell in layer
            if beside[cell]
        }
        # Cells that are connected to nothing there keep their places; the others share the rest in their new order.
        sorted_ones = iter(sorted(wish, key=lambda cell: (wish[cell], place[cell])))
        layer[:] = [next(sorted_ones) if cell in wish else cell for cell in layer]
        place.update((cell, number) for number, cell in enumerate(layer))
    return result
