"""A scene with everything in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from stepscope.viewer.graph.cells import Plan
from stepscope.viewer.graph.columns import Habits
from stepscope.viewer.graph.mainline import main_line
from stepscope.viewer.graph.measures import Measured, measure
from stepscope.viewer.graph.outline import Outline
from stepscope.viewer.graph.plan import plan_frames
from stepscope.viewer.graph.scene import Scene
from stepscope.viewer.graph.wiring import WiredFrame, wire

_END_RANKS = {"loss": 2, "calculated": 1}


@dataclass(frozen=True)
class Layout:
    """A scene, the sizes of its boxes, its frames (outer ones first), their plans, and the boxes on the main line."""

    scene: Scene
    measured: tuple[Measured, ...]
    frames: list[WiredFrame]
    plans: dict[int, Plan]
    main: tuple[int, ...]

    @property
    def width(self) -> float:
        """Of the picture, in pixels."""
        return self.plans[0].width

    @property
    def height(self) -> float:
        """Of the picture, in pixels."""
        return self.plans[0].height


def lay_out(outline: Outline, scene: Scene) -> Layout:
    """Give everything in a scene its place."""
    measured = tuple(measure(outline, box) for box in scene.boxes)
    main = main_line([scene.sinks[box] for box in range(len(scene.boxes))], lambda box: _rank(outline, scene, box))
    frames = wire(scene, set(pairwise(main)))
    return Layout(scene, measured, frames, plan_frames(frames, measured, _habits(outline, scene, main)), tuple(main))


def _rank(outline: Outline, scene: Scene, box: int) -> int:
    return max(_END_RANKS.get(outline.atoms[atom].type, 0) for atom in scene.boxes[box].atoms)


def _habits(outline: Outline, scene: Scene, main: Sequence[int]) -> Habits:
    """What no input leads to stands as far right as it can: targets, parameters, what is made of parameters alone."""
    begun = [box for box in range(len(scene.boxes)) if _begins(outline, scene, box)]
    reached = set(begun)
    while begun:
        fresh = [sink for sink in scene.sinks[begun.pop()] if sink not in reached]
        reached.update(fresh)
        begun += fresh
    losses = (box for box in range(len(scene.boxes)) if _rank(outline, scene, box) == _END_RANKS["loss"])
    return Habits(frozenset(range(len(scene.boxes))) - reached, frozenset(losses), frozenset(main))


def _begins(outline: Outline, scene: Scene, box: int) -> bool:
    """Whether data comes in here: an input, or something carried from an earlier iteration."""
    vertices = outline.graph.vertices
    members = (vertices[vertex] for atom in scene.boxes[box].atoms for vertex in outline.atoms[atom].members)
    return any(vertex.type == "input" or vertex.lag > 0 for vertex in members)
