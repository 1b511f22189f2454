"""The layout of frames: each on its own, from the innermost to the outermost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stepscope.viewer.graph.cells import Cell, Hop, Link, Placed, Plan
from stepscope.viewer.graph.crossings import order_layers
from stepscope.viewer.graph.heights import set_heights
from stepscope.viewer.graph.lanes import make_hops
from stepscope.viewer.graph.layers import assign_layers
from stepscope.viewer.graph.lines import draw_hop
from stepscope.viewer.graph.measures import Measured
from stepscope.viewer.graph.shelves import fill_shelves
from stepscope.viewer.graph.sizes import FRAME_HEADER, PADDING, text_width
from stepscope.viewer.graph.texts import module_label
from stepscope.viewer.graph.widths import set_places
from stepscope.viewer.graph.wiring import ENTRY, WiredFrame

_SIGN = 44.0


@dataclass(frozen=True)
class Habits:
    """Which boxes stand right before what they feed, and which in the last layer."""

    late: frozenset[int]
    last: frozenset[int]


def plan_frames(frames: Sequence[WiredFrame], measured: Sequence[Measured], habits: Habits) -> dict[int, Plan]:
    """The layout of every frame, by its number.

    Args:
        frames: all frames, outer ones first.
        measured: the sizes of the boxes.
        habits: of the boxes.
    """
    plans: dict[int, Plan] = {}
    for number in reversed(range(len(frames))):
        plans[number] = _plan_frame(frames[number], plans, measured, habits)
    return plans


def _plan_frame(wired: WiredFrame, plans: dict[int, Plan], measured: Sequence[Measured], habits: Habits) -> Plan:
    items = [_box_cell(box, measured[box]) for box in wired.frame.boxes]
    items += [_frame_cell(child, plans[child]) for child in wired.children]
    cells = list(items)
    links = _with_ports(cells, wired)
    _set_layers(cells, len(items), links, wired, habits)
    hops = make_hops(cells, links)
    touched = {end for hop in hops for end in (hop.tail, hop.head)}
    layers = order_layers(cells, hops, _layers(cells, touched))
    set_heights(cells, hops, layers)
    width = set_places(cells, hops, layers)
    return _finish(wired, cells, hops, width, [cell for number, cell in enumerate(items) if number not in touched])


def _box_cell(number: int, size: Measured) -> Cell:
    return Cell("box", number, size.width, size.height, size.anchor)


def _frame_cell(number: int, plan: Plan) -> Cell:
    return Cell("frame", number, plan.width, plan.height, plan.height / 2, plan.entries, plan.exits)


def _with_ports(cells: list[Cell], wired: WiredFrame) -> list[Link]:
    """The links between cells; a port for each source that enters or leaves is appended to ``cells``."""
    ports: dict[tuple[int, int], int] = {}
    links = []
    for link in wired.links.values():
        ends = [link.tail, link.head]
        for side, end in enumerate(ends):
            if end >= 0:
                continue
            if (link.source, end) not in ports:
                ports[link.source, end] = len(cells)
                cells.append(Cell("entry" if end == ENTRY else "exit", link.source))
            ends[side] = ports[link.source, end]
        links.append(Link(link.source, ends[0], ends[1], link.sinks, link.main))
    return links


def _set_layers(cells: list[Cell], items: int, links: Iterable[Link], wired: WiredFrame, habits: Habits) -> None:
    """Set the layer of each cell: entries 0, then those of boxes and frames, then exits."""
    boxes = wired.frame.boxes
    inner = [link for link in links if link.tail < items and link.head < items]
    late = {position for position, box in enumerate(boxes) if box in habits.late}
    last = {position for position, box in enumerate(boxes) if box in habits.last}
    layer, _ = assign_layers(items, inner, late=late, last=last)
    for position in range(items):
        cells[position].layer = layer[position] + 1
    for port in cells[items:]:
        port.layer = 0 if port.kind == "entry" else max(layer, default=-1) + 2


def _layers(cells: Sequence[Cell], touched: set[int]) -> list[list[int]]:
    """The cells of each layer that lines touch."""
    layers: list[list[int]] = [
        [] for _ in range(max((cell.layer for cell in cells if cell.kind != "exit"), default=0) + 2)
    ]
    for number in sorted(touched):
        layers[cells[number].layer].append(number)
    return layers


def _finish(wired: WiredFrame, cells: Sequence[Cell], hops: Sequence[Hop], width: float, alone: Sequence[Cell]) -> Plan:
    """Move everything below the frame's header, put what no line touches at the bottom, and draw the lines."""
    head = PADDING + (FRAME_HEADER if wired.parent >= 0 else 0.0)
    apart = {id(cell) for cell in alone}
    together = [cell for cell in cells if id(cell) not in apart]
    top = min((cell.y for cell in together), default=0.0)
    bottom = head
    for cell in together:
        cell.y += head - top
        bottom = max(bottom, cell.y + cell.height)
    width = max(width, text_width(module_label(wired.frame.module), 12.0) + _SIGN)
    if alone:
        start = bottom + PADDING if together else head
        right, bottom = fill_shelves(alone, left=PADDING, top=start, width=width - 2 * PADDING)
        width = max(width, right)
    for cell in cells:
        if cell.kind == "exit":
            cell.x = width
    lines = tuple(draw_hop(cells, hop, _sides(cells, apart)) for hop in hops) if hops else ()
    return Plan(
        width,
        bottom + PADDING,
        tuple(_placed(cell) for cell in cells if cell.kind == "box"),
        tuple(_placed(cell) for cell in cells if cell.kind == "frame"),
        lines,
        {cell.number: cell.y for cell in cells if cell.kind == "entry"},
        {cell.number: cell.y for cell in cells if cell.kind == "exit"},
    )


def _sides(cells: Sequence[Cell], apart: set[int]) -> dict[int, tuple[float, float]]:
    """The left and the right side of each layer."""
    sides: dict[int, tuple[float, float]] = {}
    for cell in cells:
        if id(cell) not in apart:
            left, right = sides.get(cell.layer, (cell.x, cell.x))
            sides[cell.layer] = (min(left, cell.x), max(right, cell.x + cell.width))
    return sides


def _placed(cell: Cell) -> Placed:
    return Placed(cell.number, cell.x, cell.y, cell.width, cell.height)
