"""What is written in a box: a label, a second line, rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from stepscope.store.records import Graph, Vertex
from stepscope.viewer.graph.atoms import Atom
from stepscope.viewer.graph.modules import Module
from stepscope.viewer.graph.outline import Outline
from stepscope.viewer.graph.scene import SceneBox
from stepscope.viewer.graph.sizes import BOLD, TOGGLE, WIDEST, shortened


@dataclass(frozen=True)
class RowText:
    """A row of a box: which vertex it stands for, and its label."""

    vertex: int
    label: str


@dataclass(frozen=True)
class BoxTexts:
    """The texts of a box, as they are drawn, and its full name."""

    label: str
    sub: str
    title: str
    rows: tuple[RowText, ...] = ()


def texts_of(outline: Outline, box: SceneBox) -> BoxTexts:
    """The texts of a box: of its module if it is a closed one, else of its atom."""
    if box.module is not None:
        return _module_texts(outline, box.module, box.atoms)
    atom = outline.atoms[box.atoms[0]]
    carried = outline.graph.vertices[atom.members[0]].lag > 0
    sub = atom.sub if carried else ", ".join(text for text in (atom.kind, atom.sub) if text)
    label = box.name or atom.label
    return BoxTexts(shortened(label), shortened(sub, 10.0), atom.title, _rows(outline.graph, atom))


def module_label(module: Module) -> str:
    """The name of a module; a range of numbered ones is told with the module they are in."""
    if not module.name.startswith("["):
        return module.name
    return f"{module.path.split('.')[-2]} {module.name}" if "." in module.path else module.name


def count_tensors(outline: Outline, atoms: tuple[int, ...]) -> tuple[int, int]:
    """How many tensors there are in these atoms, rows included, and how many of them are parameters."""
    vertices = outline.graph.vertices
    types = Counter(vertices[v].type for a in atoms for v in (*outline.atoms[a].members, *outline.atoms[a].weights))
    return sum(types.values()), types["parameter"]


def _module_texts(outline: Outline, module: Module, atoms: tuple[int, ...]) -> BoxTexts:
    tensors, parameters = count_tensors(outline, atoms)
    sub = f"{tensors:,} tensor{'s' if tensors != 1 else ''}" + (f", {parameters:,} param." if parameters else "")
    label = shortened(module_label(module), 12.0 * BOLD, WIDEST - 24.0 - TOGGLE)
    return BoxTexts(label, sub, module.path)


def _rows(graph: Graph, atom: Atom) -> tuple[RowText, ...]:
    """The roles of a node, if it has several, then its parameters."""
    roles = [RowText(number, shortened(graph.vertices[number].role, 11.0)) for number in atom.members]
    weights = [RowText(number, shortened(_weight_label(graph.vertices[number], atom), 11.0)) for number in atom.weights]
    return (*(roles if len(roles) > 1 else ()), *weights)


def _weight_label(vertex: Vertex, atom: Atom) -> str:
    around = ".".join(atom.module)
    return vertex.node.removeprefix(around + ".") if around else vertex.node
