"""The layout of frames: each on its own, from the innermost to the outermost."""

from __future__ import annotations

from collections.abc import Sequence

from stepscope.viewer.graph.cells import Cell, Link, Placed, Plan
from stepscope.viewer.graph.columns import Habits, fill_layers, set_layers
from stepscope.viewer.graph.crossings import order_layers
from stepscope.viewer.graph.heights import set_heights
from stepscope.viewer.graph.lanes import make_hops
from stepscope.viewer.graph.lines import draw_hops
from stepscope.viewer.graph.measures import Measured
from stepscope.viewer.graph.shelves import fill_shelves
from stepscope.viewer.graph.sizes import FRAME_HEADER, PADDING, shortened, text_width
from stepscope.viewer.graph.straighten import straighten
from stepscope.viewer.graph.texts import module_label
from stepscope.viewer.graph.widths import set_places
from stepscope.viewer.graph.wiring import ENTRY, WiredFrame

_SIGN = 44.0


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
    cells = [_box_cell(box, measured[box]) for box in wired.frame.boxes]
    cells += [_frame_cell(child, plans[child]) for child in wired.children]
    links = _with_ports(cells, wired)
    linked = {end for link in links for end in (link.tail, link.head)}
    alone = [cell for number, cell in enumerate(cells) if number not in linked]
    set_layers(cells, links, habits)
    hops = make_hops(cells, links)
    layers = order_layers(cells, hops, fill_layers(cells, hops, habits))
    set_heights(cells, hops, layers)
    straighten(cells, hops, layers)
    together = [cells[number] for layer in layers for number in layer]
    width = max(set_places(cells, hops, layers), _narrowest(wired))
    width, height = _finish(together, alone, width, PADDING + (FRAME_HEADER if wired.parent >= 0 else 0.0))
    return Plan(
        width,
        height,
        _placed(cells, "box"),
        _placed(cells, "frame"),
        tuple(draw_hops(cells, hops)),
        {cell.number: cell.y for cell in cells if cell.kind == "entry"},
        {cell.number: cell.y for cell in cells if cell.kind == "exit"},
    )


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


def _narrowest(wired: WiredFrame) -> float:
    return text_width(shortened(module_label(wired.frame.module)), 12.0) + _SIGN


def _finish(together: Sequence[Cell], alone: Sequence[Cell], width: float, head: float) -> tuple[float, float]:
    """Move everything below the frame's header and what no line touches to the bottom; return the frame's size."""
    top = min((cell.y for cell in together), default=0.0)
    bottom = head
    for cell in together:
        cell.y += head - top
        bottom = max(bottom, cell.y + cell.height)
    if alone:
        start = bottom + PADDING if together else head
        right, bottom = fill_shelves(alone, left=PADDING, top=start, width=width - 2 * PADDING)
        width = max(width, right)
    for cell in together:
        if cell.kind == "exit":
            cell.x = width
    return width, bottom + PADDING


def _placed(cells: Sequence[Cell], kind: str) -> tuple[Placed, ...]:
    return tuple(Placed(cell.number, cell.x, cell.y, cell.width, cell.height) for cell in cells if cell.kind == kind)
