"""The drawing of a graph, kept for the next time it is asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from stepscope.store.records import Graph


def draw(
    graph: Graph,
    opened: Iterable[str] | None = None,
    *,
    width: int = 1000,
    height: int = 400,
    parameters_as_boxes: bool = False,
    continued: Collection[tuple[str, str]] = (),
    digest: str | None = None,
) -> dict[str, Any]:
    """The picture of a graph, with some of its modules open; the shape is described in ``stepscope.viewer.graph``.

    Args:
        graph: the graph of one iteration.
        opened: paths of the modules that are open, or None to open what is readable in the panel.
        width: of the panel, in pixels.
        height: of the panel, in pixels.
        parameters_as_boxes: show each parameter as a box of its own, not as a row of what it feeds.
        continued: the ``(node, role)`` that later iterations use, so that they do not look unused.
        digest: what ``graph_digest`` gave for this graph, if that is at hand; else it is computed.
    """
    raise NotImplementedError


def open_to(graph: Graph, node: str, opened: Iterable[str] | None = None, *, digest: str | None = None) -> list[str]:
    """The modules to open so that ``node`` has a box: ``opened`` (None: no others) and all modules around the node."""
    raise NotImplementedError
