"""The layers of a frame: which cells are in which, and the order that they start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stepscope.viewer.graph.cells import Cell, Hop, Link
from stepscope.viewer.graph.layers import assign_layers


@dataclass(frozen=True)
class Habits:
    """Which boxes stand right before what they feed, which in the last layer, and which are on the main line."""

    late: frozenset[int]
    last: frozenset[int]
    main: frozenset[int]


def set_layers(cells: Sequence[Cell], links: Sequence[Link], habits: Habits) -> None:
    """Set the layer of each cell: 0 for entries, then those of boxes and frames, then exits."""
    items = [number for number, cell in enumerate(cells) if cell.kind in ("box", "frame")]
    inner = [link for link in links if link.tail < len(items) and link.head < len(items)]
    late = {number for number in items if cells[number].kind == "box" and cells[number].number in habits.late}
    last = {number for number in items if cells[number].kind == "box" and cells[number].number in habits.last}
    layer, _ = assign_layers(len(items), inner, late=late, last=last)
    for number, cell in enumerate(cells):
        if number < len(items):
            cell.layer = layer[number] + 1
        else:
            cell.layer = 0 if cell.kind == "entry" else max(layer, default=-1) + 2


def fill_layers(cells: Sequence[Cell], hops: Sequence[Hop], habits: Habits) -> list[list[int]]:
    """The cells of each layer that lines touch; lines that leave the main line for a while start out above it."""
    touched = {end for hop in hops for end in (hop.tail, hop.head)}
    straight = {end for hop in hops if hop.main for end in (hop.tail, hop.head)}
    skips = {
        number
        for number in touched - straight
        if cells[number].kind not in ("box", "frame") and cells[number].number in habits.main
    }
    # Even if nothing leaves the frame, there is a last layer for exits.
    last = max((cell.layer + (cell.kind != "exit") for cell in cells), default=1)
    layers: list[list[int]] = [[] for _ in range(last + 1)]
    for number in sorted(touched, key=lambda cell: (cell not in skips, cell)):
        layers[cells[number].layer].append(number)
    return layers
