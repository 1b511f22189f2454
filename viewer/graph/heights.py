"""How high the cells of each layer stand: the main line is straight, and the other lines nearly so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from stepscope.viewer.graph.cells import Cell, Hop
from stepscope.viewer.graph.isotonic import isotonic

_SWEEPS: tuple[Literal["left", "right", "both"], ...] = ("left", "right", "left", "right", "both", "both", "both")
_UNCONNECTED = 0.01
_THIN = ("lane", "entry", "exit")

Pulls = list[list[tuple[int, float, float]]]
"""For each cell: another cell, how far below that one's top this one's top wants to be, and how much it wants it."""


def set_heights(cells: Sequence[Cell], hops: Sequence[Hop], layers: Sequence[Sequence[int]]) -> None:
    """Set ``y`` of all cells; the main line runs at 0, and each layer keeps its order."""
    _fix_main_line(cells, hops)
    for layer in layers:
        _stack(cells, layer)
    pulls = _pulls(cells, hops)
    for side in _SWEEPS:
        for layer in layers if side != "right" else reversed(layers):
            _move(cells, layer, pulls[side])


def gap_between(upper: Cell, lower: Cell) -> float:
    """The least room between a cell and the one below it."""
    if upper.kind in _THIN and lower.kind in _THIN:
        return 9.0
    if upper.kind == "frame" or lower.kind == "frame":
        return 16.0
    return 15.0


def _fix_main_line(cells: Sequence[Cell], hops: Sequence[Hop]) -> None:
    """Put what the main line touches at its height, one cell in each layer."""
    taken: dict[int, int] = {}
    for hop in hops:
        if not hop.main:
            continue
        for number, touch in (
            (hop.tail, cells[hop.tail].touch_right(hop.source)),
            (hop.head, cells[hop.head].touch_left(hop.source)),
        ):
            cell = cells[number]
            if taken.setdefault(cell.layer, number) == number and not cell.fixed:
                cell.y, cell.fixed = -touch, True


def _stack(cells: Sequence[Cell], layer: Sequence[int]) -> None:
    """Put the cells of a layer below each other, around 0 or around the one that is fixed."""
    offsets = _offsets(cells, layer)
    start = -offsets[-1] / 2 if offsets else 0.0
    for number, offset in zip(layer, offsets, strict=True):
        if cells[number].fixed:
            start = cells[number].y - offset
    for number, offset in zip(layer, offsets, strict=True):
        cells[number].y = start + offset


def _offsets(cells: Sequence[Cell], layer: Sequence[int]) -> list[float]:
    """How far below the first cell each one has to be at least."""
    offsets: list[float] = []
    for place, number in enumerate(layer):
        if not place:
            offsets.append(0.0)
            continue
        upper = cells[layer[place - 1]]
        offsets.append(offsets[-1] + upper.height + gap_between(upper, cells[number]))
    return offsets


def _pulls(cells: Sequence[Cell], hops: Sequence[Hop]) -> dict[str, Pulls]:
    left: Pulls = [[] for _ in cells]
    right: Pulls = [[] for _ in cells]
    for hop in hops:
        west, east = (hop.head, hop.tail) if hop.back else (hop.tail, hop.head)
        if cells[west].layer == cells[east].layer:
            continue
        lower = cells[west].touch_right(hop.source) - cells[east].touch_left(hop.source)
        lanes = (cells[west].kind == "lane") + (cells[east].kind == "lane")
        weight = (2.0, 3.0, 8.0)[lanes]
        left[east].append((west, lower, weight))
        right[west].append((east, -lower, weight))
    return {"left": left, "right": right, "both": [[*a, *b] for a, b in zip(left, right, strict=True)]}


def _move(cells: Sequence[Cell], layer: Sequence[int], pulls: Pulls) -> None:
    """Move the cells of a layer to where they are pulled, as far as their order and the fixed one let them."""
    offsets = _offsets(cells, layer)
    wishes, weights = [], []
    for number, offset in zip(layer, offsets, strict=True):
        total = sum(weight for _, _, weight in pulls[number])
        wish = sum((cells[other].y + lower) * weight for other, lower, weight in pulls[number])
        wishes.append((wish / total if total else cells[number].y) - offset)
        weights.append(total or _UNCONNECTED)
    middle = next((place for place, number in enumerate(layer) if cells[number].fixed), None)
    for number, value, offset in zip(
        layer, _around(cells, layer, offsets, wishes, weights, middle), offsets, strict=True
    ):
        if not cells[number].fixed:
            cells[number].y = value + offset


def _around(
    cells: Sequence[Cell],
    layer: Sequence[int],
    offsets: list[float],
    wishes: list[float],
    weights: list[float],
    middle: int | None,
) -> list[float]:
    """Growing values; those before the fixed cell are at most its value, those after it at least."""
    if middle is None:
        return isotonic(wishes, weights)
    pivot = cells[layer[middle]].y - offsets[middle]
    above = isotonic(wishes[:middle], weights[:middle])
    below = isotonic(wishes[middle + 1 :], weights[middle + 1 :])
    return [*(min(value, pivot) for value in above), pivot, *(max(value, pivot) for value in below)]
