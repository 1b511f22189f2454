"""From hops between placed cells to lines, and from lines to the path data of SVG."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from stepscope.viewer.graph.cells import Cell, Hop, Line

_BEND = 15.0


def draw_hops(cells: Sequence[Cell], hops: Iterable[Hop]) -> list[Line]:
    """The lines of a frame, when all cells are placed.

    A line passes the lane that it ends in, so that the next one starts at the lane's far side.
    """
    hops = list(hops)
    sides: dict[int, tuple[float, float]] = {}
    for number in {end for hop in hops for end in (hop.tail, hop.head)}:
        cell = cells[number]
        left, right = sides.get(cell.layer, (cell.x, cell.x))
        sides[cell.layer] = (min(left, cell.x), max(right, cell.x + cell.width))
    return [_draw_hop(cells, hop, sides) for hop in hops]


def _draw_hop(cells: Sequence[Cell], hop: Hop, sides: Mapping[int, tuple[float, float]]) -> Line:
    tail, head = cells[hop.tail], cells[hop.head]
    turn = tail.layer == head.layer
    from_left = hop.back and tail.kind == "lane"
    to_right = hop.back and head.kind == "lane"
    start = (tail.x if from_left else tail.x + tail.width, tail.y + tail.touch_right(hop.source))
    end = (head.x + head.width if to_right else head.x, head.y + head.touch_left(hop.source))
    points = [start, (sides[tail.layer][0 if from_left else 1], start[1])]
    points += [(sides[head.layer][1 if to_right else 0], end[1]), end]
    if head.kind == "lane":
        points[-1] = (head.x if hop.back else head.x + head.width, end[1])
    bend = 0.0 if not turn else -_BEND if from_left else _BEND
    return Line(hop.source, frozenset(hop.sinks), tuple(points), bend, hop.back, head.kind == "box")


def path_data(line: Line, x: float, y: float) -> str:
    """The path of a line for SVG, moved by ``x`` and ``y``."""
    (x0, y0), (x1, y1), (x2, y2), (x3, _) = [(x + px, y + py) for px, py in line.points]
    if line.bend:
        first, second = x1 + line.bend, x2 + line.bend
    elif abs(y1 - y2) < 0.05:
        return f"M{_n(x0)} {_n(y0)}H{_n(x3)}"
    else:
        first = second = (x1 + x2) / 2
    curve = f"C{_n(first)} {_n(y1)} {_n(second)} {_n(y2)} {_n(x2)} {_n(y2)}"
    return f"M{_n(x0)} {_n(y0)}" + (f"H{_n(x1)}" if x1 != x0 else "") + curve + (f"H{_n(x3)}" if x3 != x2 else "")


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
