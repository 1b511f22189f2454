"""What is to be seen when some modules are open: boxes, the frames they are in, and the edges between them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field

from stepscope.viewer.graph.modules import Module
from stepscope.viewer.graph.outline import Outline

MOST_BOXES = 1500
"""No picture has more boxes than this, whatever is asked for."""


@dataclass(frozen=True)
class SceneBox:
    """A visible box: an atom, or a closed module.

    ``atoms`` are all atoms in it. ``name`` replaces the atom's label where the box stands for its whole module.
    """

    atoms: tuple[int, ...]
    module: Module | None = None
    name: str = ""


@dataclass
class Frame:
    """An open module: the boxes (numbers into the scene's) directly in it, and the open modules in it."""

    module: Module
    boxes: list[int] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)


@dataclass
class Scene:
    """Boxes in the graph's order, the frame around everything, and the edges.

    ``edges`` maps a pair of boxes to whether gradients are blocked between them. ``refused`` are the modules that would
    have been open if that were not too much.
    """

    boxes: list[SceneBox]
    root: Frame
    edges: dict[tuple[int, int], bool]
    sinks: dict[int, list[int]]
    sources: dict[int, list[int]]
    box_of: list[int]
    opened: tuple[str, ...]
    refused: tuple[str, ...]


def build_scene(outline: Outline, opened: Collection[str]) -> Scene:
    """The scene with these modules open; modules inside closed ones stay unseen."""
    wanted, refused = _affordable(outline.root, set(opened))
    scene = Scene([], Frame(outline.root), {}, defaultdict(list), defaultdict(list), [0] * len(outline.atoms), (), ())
    _fill(scene, scene.root, wanted)
    scene.opened, scene.refused = tuple(sorted(wanted)), tuple(sorted(refused))
    for number, box in enumerate(scene.boxes):
        for atom in box.atoms:
            scene.box_of[atom] = number
    _connect(scene, outline)
    return scene


def _affordable(root: Module, opened: set[str]) -> tuple[set[str], set[str]]:
    """The modules to open, level by level while there are not too many boxes, and the modules refused."""
    wanted: set[str] = set()
    refused: set[str] = set()
    boxes = len(root.atoms) + len(root.children)
    level = [root]
    while level:
        following = []
        for child in (child for module in level for child in module.children.values()):
            if child.path not in opened or child.is_one_box:
                continue
            more = len(child.atoms) + len(child.children) - 1
            if boxes + more > MOST_BOXES:
                refused.add(child.path)
                continue
            boxes += more
            wanted.add(child.path)
            following.append(child)
        level = following
    return wanted, refused


def _fill(scene: Scene, frame: Frame, wanted: set[str]) -> None:
    """Put the boxes and open modules of a module into its frame, in the order of their first atoms."""
    found: list[tuple[int, Module | None]] = [(atom, None) for atom in frame.module.atoms]
    found += [(child.contents[0], child) for child in frame.module.children.values()]
    for atom, module in sorted(found, key=lambda pair: (pair[0], pair[1] is not None)):
        if module is not None and module.path in wanted:
            inner = Frame(module)
            frame.frames.append(inner)
            _fill(scene, inner, wanted)
            continue
        frame.boxes.append(len(scene.boxes))
        if module is None:
            scene.boxes.append(SceneBox((atom,)))
        elif module.is_one_box:
            scene.boxes.append(SceneBox((atom,), name=module.name))
        else:
            scene.boxes.append(SceneBox(module.contents, module))


def _connect(scene: Scene, outline: Outline) -> None:
    for edge in outline.edges:
        pair = (scene.box_of[edge.source], scene.box_of[edge.sink])
        if pair[0] != pair[1]:
            scene.edges[pair] = scene.edges.get(pair, True) and edge.blocked
    for source, sink in scene.edges:
        scene.sinks[source].append(sink)
        scene.sources[sink].append(source)
