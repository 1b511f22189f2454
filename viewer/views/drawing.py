"""The graph panel's drawing for a moment, and which modules have to be open for the selected node to be seen."""

from __future__ import annotations

from typing import Any

from stepscope.analysis.overview import continued
from stepscope.store import Group
from stepscope.store.errors import StoreError
from stepscope.viewer.graph import draw, open_to
from stepscope.viewer.selection import Selection
from stepscope.viewer.views.moment import Moment, moment


def drawing(now: Moment, size: tuple[int, int]) -> dict[str, Any]:
    """The picture of the iteration's graph.

    Args:
        now: the moment.
        size: width and height of the panel, in pixels.
    """
    width, height = size
    return draw(
        now.step.graph(now.iteration),
        now.selection.opened,
        width=width,
        height=height,
        continued=continued(now.step),
        digest=now.step.graph_digest(now.iteration).hex(),
    )


def revealed(selection: Selection, group: Group, size: tuple[int, int]) -> Selection:
    """The selection, with all modules open that hide its node."""
    if not selection.node:
        return selection
    try:
        now = moment(selection, group)
    except StoreError:
        return selection
    if now is None:
        return selection
    picture = drawing(now, size)
    for node, _, _, box, _ in picture["tensors"]:
        if node == selection.node and picture["boxes"][box]["type"] == "module":
            digest = now.step.graph_digest(now.iteration).hex()
            graph = now.step.graph(now.iteration)
            return selection.with_changes(opened=tuple(open_to(graph, node, picture["opened"], digest=digest)))
    return selection
