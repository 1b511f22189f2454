"""What a frame is laid out from, and what comes out: cells in layers and hops between them, then a plan."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

CellKind = Literal["box", "frame", "entry", "exit", "lane"]


@dataclass(slots=True)
class Cell:
    """Something with a place in a layer.

    A box; a frame that is laid out already; a port through which the lines of one source enter or leave the frame; a
    lane, which is the stretch of a line through a layer. ``number`` is the box, the frame, or the source of the line.
    ``left`` and ``right`` tell where the lines of a source touch the cell, from its top; ``anchor`` is where the others
    do. A ``fixed`` cell is on the main line, and stays where it is when the others are moved.
    """

    kind: CellKind
    number: int
    width: float = 0.0
    height: float = 0.0
    anchor: float = 0.0
    left: dict[int, float] = field(default_factory=dict)
    right: dict[int, float] = field(default_factory=dict)
    layer: int = 0
    x: float = 0.0
    y: float = 0.0
    fixed: bool = False

    def touch_left(self, source: int) -> float:
        """How far below its top the lines of a source arrive."""
        return self.left.get(source, self.anchor)

    def touch_right(self, source: int) -> float:
        """How far below its top the lines of a source leave."""
        return self.right.get(source, self.anchor)


@dataclass(slots=True)
class Link:
    """The lines of one source box from one cell to another, for all ``sinks`` in or beyond the other cell."""

    source: int
    tail: int
    head: int
    sinks: set[int] = field(default_factory=set)
    main: bool = False


@dataclass(slots=True)
class Hop:
    """A piece of a line between cells of neighbouring layers, shared by all links of its source.

    A hop that runs ``back`` goes from right to left; one whose cells are in the same layer is a turn.
    """

    source: int
    tail: int
    head: int
    sinks: set[int]
    main: bool = False
    back: bool = False


@dataclass(frozen=True)
class Placed:
    """A box or frame with its place in the frame it was laid out in."""

    number: int
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Line:
    """A piece of a line: straight from the first point to the second, curved to the third, straight to the last.

    ``bend`` is how far to the right of both the curve of a turn reaches (below 0: to the left).
    """

    source: int
    sinks: frozenset[int]
    points: tuple[tuple[float, float], ...]
    bend: float
    back: bool
    arrow: bool


@dataclass(frozen=True)
class Plan:
    """A frame, laid out: its size, what is in it, and how far below its top lines of each source cross its sides."""

    width: float
    height: float
    boxes: tuple[Placed, ...]
    frames: tuple[Placed, ...]
    lines: tuple[Line, ...]
    entries: dict[int, float]
    exits: dict[int, float]
