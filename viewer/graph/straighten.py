"""Long lines with few bends: the lanes of a line are brought to one height, as far as there is room."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import inf

from stepscope.viewer.graph.cells import Cell, Hop
from stepscope.viewer.graph.heights import gap_between

_ROUNDS = 2

Span = tuple[float, float]


def straighten(cells: Sequence[Cell], hops: Sequence[Hop], layers: Sequence[Sequence[int]]) -> None:
    """Move lanes and ports up or down between the cells around them, so that lines bend seldom."""
    chains = _chains(cells, hops)
    place = {cell: (layer, at) for layer in layers for at, cell in enumerate(layer)}
    for _ in range(_ROUNDS):
        for chain, start, end in chains:
            spans = [_room(cells, *place[number]) for number in chain]
            for number, height in zip(chain, _heights(cells, chain, spans, start, end), strict=True):
                cells[number].y = height


def _chains(cells: Sequence[Cell], hops: Sequence[Hop]) -> list[tuple[list[int], float | None, float | None]]:
    """The lanes and ports of each line in their order, and the heights at which it leaves and reaches its boxes."""
    members: dict[tuple[int, bool], set[int]] = defaultdict(set)
    for hop in hops:
        members[hop.source, hop.back].update(end for end in (hop.tail, hop.head) if _movable(cells[end]))
    chains = []
    for (source, back), some in members.items():
        chain = sorted(some, key=lambda number: cells[number].layer)
        mine = [hop for hop in hops if hop.source == source and hop.back == back]
        if chain and not back:
            chains.append((chain, _start(cells, mine, chain[0]), _end(cells, mine, chain[-1])))
        elif chain:
            chains.append((chain, None, None))
    return chains


def _movable(cell: Cell) -> bool:
    return cell.kind in ("lane", "entry", "exit") and not cell.fixed


def _start(cells: Sequence[Cell], hops: Sequence[Hop], first: int) -> float | None:
    """Where the line comes from, if that cannot move."""
    tails = [cells[hop.tail].y + cells[hop.tail].touch_right(hop.source) for hop in hops if hop.head == first]
    return tails[0] if tails else None


def _end(cells: Sequence[Cell], hops: Sequence[Hop], last: int) -> float | None:
    """Where the line goes to, if that is one place."""
    heads = [cells[hop.head].y + cells[hop.head].touch_left(hop.source) for hop in hops if hop.tail == last]
    return heads[0] if len(heads) == 1 else None


def _room(cells: Sequence[Cell], layer: Sequence[int], at: int) -> Span:
    """Between which heights a cell can move without touching its neighbours."""
    cell = cells[layer[at]]
    low, high = -inf, inf
    if at:
        above = cells[layer[at - 1]]
        low = above.y + above.height + gap_between(above, cell)
    if at + 1 < len(layer):
        below = cells[layer[at + 1]]
        high = below.y - gap_between(cell, below) - cell.height
    return (min(low, cell.y), max(high, cell.y))


def _heights(
    cells: Sequence[Cell], chain: Sequence[int], spans: Sequence[Span], start: float | None, end: float | None
) -> list[float]:
    """One height for each run of cells that have a height in common."""
    runs = _runs(spans)
    mean = sum(cells[number].y for number in chain) / len(chain)
    heights: list[float] = []
    before = start if start is not None else end if end is not None else mean
    for place, (size, (low, high)) in enumerate(runs):
        final = place == len(runs) - 1 and end is not None
        wish = end if final and end is not None and low <= end <= high and not low <= before <= high else before
        before = min(max(wish, low), high)
        heights += [before] * size
    return heights


def _runs(spans: Sequence[Span]) -> list[tuple[int, Span]]:
    """The fewest runs of spans with something in common, and what that is."""
    runs: list[tuple[int, Span]] = []
    for low, high in spans:
        if runs:
            size, (lowest, highest) = runs[-1]
            common = (max(low, lowest), min(high, highest))
            if common[0] <= common[1]:
                runs[-1] = (size + 1, common)
                continue
        runs.append((1, (low, high)))
    return runs
