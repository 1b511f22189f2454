"""Which links each frame has: an edge between boxes leaves frames through ports, and enters others."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from stepscope.viewer.graph.cells import Link
from stepscope.viewer.graph.scene import Frame, Scene

ENTRY, EXIT = -1, -2
"""Stand for the ports in a link, before these are cells."""


@dataclass
class WiredFrame:
    """A frame with its place among all frames, and its links.

    Its cells are its boxes, then its inner frames; links speak of them by position. ``children`` are numbers of frames.
    """

    frame: Frame
    parent: int
    position: int
    depth: int
    children: list[int] = field(default_factory=list)
    links: dict[tuple[int, int, int], Link] = field(default_factory=dict)

    def connect(self, source: int, tail: int, head: int, sink: int, *, main: bool) -> None:
        """Lead the lines of a source from one cell to another, for one more sink."""
        link = self.links.setdefault((source, tail, head), Link(source, tail, head))
        link.sinks.add(sink)
        link.main = link.main or main


def wire(scene: Scene, main: Collection[tuple[int, int]]) -> list[WiredFrame]:
    """All frames of a scene, outer ones first, with the links that its edges need.

    Args:
        scene: what is to be seen.
        main: the edges on the main line.
    """
    frames = [WiredFrame(scene.root, -1, 0, 0)]
    home: dict[int, tuple[int, int]] = {}
    for number, wired in enumerate(frames):  # grows while it is read
        for position, box in enumerate(wired.frame.boxes):
            home[box] = (number, position)
        for position, inner in enumerate(wired.frame.frames, len(wired.frame.boxes)):
            wired.children.append(len(frames))
            frames.append(WiredFrame(inner, number, position, wired.depth + 1))
    for edge in scene.edges:
        _lead(frames, edge, home[edge[0]], home[edge[1]], edge in main)
    return frames


def _lead(
    frames: list[WiredFrame], edge: tuple[int, int], tail: tuple[int, int], head: tuple[int, int], main: bool
) -> None:
    """Lead an edge out of the frames around its source, and into those around its sink."""
    source, sink = edge
    while tail[0] != head[0]:
        outer, inner = frames[tail[0]], frames[head[0]]
        if outer.depth >= inner.depth:
            outer.connect(source, tail[1], EXIT, sink, main=main)
            tail = (outer.parent, outer.position)
        else:
            inner.connect(source, ENTRY, head[1], sink, main=main)
            head = (inner.parent, inner.position)
    frames[tail[0]].connect(source, tail[1], head[1], sink, main=main)
