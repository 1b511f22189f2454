"""From links to hops: lines that pass layers get a lane in each, one for all lines of a source."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from stepscope.viewer.graph.cells import Cell, Hop, Link


def make_hops(cells: list[Cell], links: Iterable[Link]) -> list[Hop]:
    """The hops for links between cells whose layers are known; lanes are appended to ``cells``."""
    hops: dict[tuple[int, int, int], Hop] = {}
    lanes: dict[tuple[int, int, bool], int] = {}
    for link in links:
        way = _way(cells, lanes, link)
        back = cells[link.head].layer <= cells[link.tail].layer
        for tail, head in pairwise(way):
            hop = hops.setdefault((link.source, tail, head), Hop(link.source, tail, head, set(), back=back))
            hop.sinks |= link.sinks
            hop.main = hop.main or (link.main and not back)
    return list(hops.values())


def _way(cells: list[Cell], lanes: dict[tuple[int, int, bool], int], link: Link) -> list[int]:
    """The cells that a link passes; backwards, it also passes the layers of its ends, around them."""
    first, last = cells[link.tail].layer, cells[link.head].layer
    back = last <= first
    between = range(first, last - 1, -1) if back else range(first + 1, last)
    way = [link.tail]
    for layer in between:
        key = (link.source, layer, back)
        if key not in lanes:
            lanes[key] = len(cells)
            cells.append(Cell("lane", link.source, layer=layer))
        way.append(lanes[key])
    return [*way, link.head]
