"""Which modules to open when nobody said which: as many as the panel has room for, level by level."""

from __future__ import annotations

from stepscope.viewer.graph.layout import Layout, lay_out
from stepscope.viewer.graph.modules import Module
from stepscope.viewer.graph.outline import Outline
from stepscope.viewer.graph.scene import build_scene

READABLE = 0.62
"""The smallest scale at which labels can be read."""
_TRIES = 16
_SMALLEST_BOX = 64.0 * 40.0


def open_readable(outline: Outline, width: float, height: float) -> Layout:
    """The layout with the modules open that fit the panel at a readable scale.

    A whole level is opened if it fits, else those of its modules that do, in the graph's order; modules that are alike
    are opened together or not at all.

    Args:
        outline: of the graph.
        width: of the panel, in pixels.
        height: of the panel, in pixels.
    """
    room = (width / READABLE, height / READABLE)
    opened: set[str] = set()
    layout = lay_out(outline, build_scene(outline, opened))
    level = _openable([outline.root])
    tries = _TRIES
    while level and tries > 0:
        following: list[Module] = []
        for group in (level, *_alike(level)):
            tries -= 1
            larger = _try(outline, opened | {module.path for module in group}, room) if tries >= 0 else None
            if larger is not None:
                layout, following = larger, following + group
                opened |= {module.path for module in group}
            if group is level and larger is not None:
                break
        level = _openable(following)
    return layout


def _alike(level: list[Module]) -> list[list[Module]]:
    """The modules in groups of those with the same number of things in them; none if all are in one."""
    groups: dict[tuple[int, int, int], list[Module]] = {}
    for module in level:
        groups.setdefault((module.inside, len(module.atoms), len(module.children)), []).append(module)
    return list(groups.values()) if len(groups) > 1 else []


def _openable(modules: list[Module]) -> list[Module]:
    return [child for module in modules for child in module.children.values() if not child.is_one_box]


def _try(outline: Outline, opened: set[str], room: tuple[float, float]) -> Layout | None:
    scene = build_scene(outline, opened)
    if scene.refused or len(scene.boxes) * _SMALLEST_BOX > room[0] * room[1]:
        return None
    layout = lay_out(outline, scene)
    return layout if layout.width <= room[0] and layout.height <= room[1] else None
