"""The drawing of a graph, kept for the next time it is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from stepscope.store.records import Graph
from stepscope.viewer.graph.describe import describe
from stepscope.viewer.graph.layout import lay_out
from stepscope.viewer.graph.opening import open_readable
from stepscope.viewer.graph.outline import Outline, outline_of
from stepscope.viewer.graph.scene import build_scene
from stepscope.viewer.graph.tree import way_to


def draw(
    graph: Graph,
    opened: Iterable[str] | None = None,
    *,
    width: int = 1000,
    height: int = 400,
    parameters_as_boxes: bool = False,
    continued: Collection[tuple[str, str]] = (),
    digest: str | bytes | None = None,
) -> dict[str, Any]:
    """The picture of a graph, with some of its modules open; the shape is described in ``stepscope.viewer.graph``.

    Pictures are kept: do not change what you get.

    Args:
        graph: the graph of one iteration.
        opened: paths of the modules that are open, or None to open what is readable in the panel.
        width: of the panel, in pixels.
        height: of the panel, in pixels.
        parameters_as_boxes: show each parameter as a box of its own, not as a row of what it feeds.
        continued: the ``(node, role)`` that later iterations use, so that they do not look unused.
        digest: what ``graph_digest`` gave for this graph, if that is at hand; else it is computed.
    """
    modules = None if opened is None else tuple(sorted(set(opened)))
    panel = (width, height) if modules is None else (0, 0)
    return _drawing(_known(graph, digest), modules, panel, parameters_as_boxes, frozenset(continued))


def open_to(
    graph: Graph, node: str, opened: Iterable[str] | None = None, *, digest: str | bytes | None = None
) -> list[str]:
    """The modules to open so that ``node`` has a box: ``opened`` (None: no others) and all modules around the node."""
    outline = _outline(_known(graph, digest), False)
    wanted = set(opened or ())
    for number, vertex in enumerate(graph.vertices):
        if vertex.node == node:
            wanted.update(way_to(outline.root, outline.atom_of[number]))
    return sorted(wanted)


@dataclass(frozen=True)
class _Known:
    """A graph that is told from others by its digest alone, which is faster than by all that is in it."""

    digest: str | bytes
    graph: Graph = field(compare=False)


def _known(graph: Graph, digest: str | bytes | None) -> _Known:
    return _Known(digest or hashlib.blake2b(repr(graph).encode(), digest_size=16).hexdigest(), graph)


@lru_cache(maxsize=64)
def _outline(known: _Known, parameters_as_boxes: bool) -> Outline:
    return outline_of(known.graph, parameters_as_boxes=parameters_as_boxes)


@lru_cache(maxsize=128)
def _drawing(
    known: _Known,
    opened: tuple[str, ...] | None,
    panel: tuple[int, int],
    parameters_as_boxes: bool,
    continued: frozenset[tuple[str, str]],
) -> dict[str, Any]:
    outline = _outline(known, parameters_as_boxes)
    layout = open_readable(outline, *panel) if opened is None else lay_out(outline, build_scene(outline, opened))
    return describe(outline, layout, continued)
