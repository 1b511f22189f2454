"""What a frame is laid out from: cells in layers, and links between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

CellKind = Literal["box", "frame", "entry", "exit", "lane"]


@dataclass
class Cell:
    """Something with a place in a layer.

    A box; a frame that is laid out already; a port through which lines of one source enter or leave the frame; a lane,
    which is the stretch of a line through a layer. ``number`` is the box, the position of the frame among its parent's
    frames, or the source of the line. ``left`` and ``right`` tell where a line of a source touches the cell, from its
    top; ``anchor`` is where it does otherwise.
    """

    kind: CellKind
    number: int
    width: float
    height: float
    anchor: float
    left: dict[int, float] = field(default_factory=dict)
    right: dict[int, float] = field(default_factory=dict)
    layer: int = 0
    x: float = 0.0
    y: float = 0.0

    def touch_left(self, source: int) -> float:
        """How far below its top the lines of a source arrive."""
        return self.left.get(source, self.anchor)

    def touch_right(self, source: int) -> float:
        """How far below its top the lines of a source leave."""
        return self.right.get(source, self.anchor)


@dataclass
class Link:
    """The lines of one source box from one cell to another, for all ``sinks`` in or beyond the other cell."""

    source: int
    tail: int
    head: int
    sinks: set[int] = field(default_factory=set)
    main: bool = False
    back: bool = False


@dataclass
class Hop:
    """A piece of a link between neighbouring layers (or a turn of a backward link); shared by links of one source."""

    source: int
    tail: int
    head: int
    sinks: set[int]
    main: bool = False
    back: bool = False


@dataclass(frozen=True)
class Placed:
    """A box, a frame or a line with its place in the frame it was laid out in."""

    number: int
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Line:
    """The points of a piece of line: straight between the first two and the last two, curved between the inner two."""

    source: int
    sinks: frozenset[int]
    points: tuple[tuple[float, float], ...]
    back: bool
    arrow: bool


@dataclass
class Plan:
    """A frame, laid out: its size, what is in it, and where the lines of each source cross its sides."""

    width: float
    height: float
    boxes: list[Placed]
    frames: list[tuple[str, int, float, float, float, float]]
    lines: list[Line]
    entries: dict[int, float]
    exits: dict[int, float]
