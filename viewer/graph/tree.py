"""The tree of modules that a graph's boxes live in."""

from __future__ import annotations

from collections.abc import Sequence

from stepscope.viewer.graph.folding import fold
from stepscope.viewer.graph.modules import Module, join_path


def build_tree(homes: Sequence[tuple[str, ...]]) -> Module:
    """The tree for atoms that live in these modules; its root is the space around all modules."""
    root = Module("", "")
    for atom, home in enumerate(homes):
        module = root
        for name in home:
            if name not in module.children:
                module.children[name] = Module(join_path(module.path, name), name)
            module = module.children[name]
        module.atoms.append(atom)
    _count(root)
    fold(root)
    for name, child in list(root.children.items()):
        root.children[name] = _skip_lone(child)
    return root


def way_to(root: Module, atom: int) -> list[str]:
    """The paths of the modules around an atom that can be opened, outermost first."""
    for child in root.children.values():
        if atom in child.contents:
            return [] if child.is_one_box else [child.path, *way_to(child, atom)]
    return []


def _count(module: Module) -> int:
    module.inside = len(module.atoms) + sum(_count(child) for child in module.children.values())
    return module.inside


def _skip_lone(module: Module) -> Module:
    """A module with nothing of its own but one other module is shown as that one, under both names."""
    if not module.atoms and len(module.children) == 1:
        (child,) = module.children.values()
        return _skip_lone(
            Module(child.path, join_path(module.name, child.name), child.atoms, child.children, child.inside)
        )
    for name, child in list(module.children.items()):
        module.children[name] = _skip_lone(child)
    return module
