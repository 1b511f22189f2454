"""The tree of modules that a graph's boxes live in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

LONGEST_RUN = 12
"""More numbered modules than this on one level are folded into ranges."""


@dataclass
class Module:
    """A module, or a range of numbered ones: its path, its own atoms, and the modules in it.

    ``inside`` counts the atoms in it and below it.
    """

    path: str
    name: str
    atoms: list[int] = field(default_factory=list)
    children: dict[str, Module] = field(default_factory=dict)
    inside: int = 0

    @property
    def is_one_box(self) -> bool:
        """Whether opening it would show a single box: then it is no module in the picture, just that box."""
        return self.inside == 1

    def below(self) -> Iterator[int]:
        """All atoms in it and below it."""
        yield from self.atoms
        for child in self.children.values():
            yield from child.below()


def build_tree(homes: Sequence[tuple[str, ...]]) -> Module:
    """The tree for atoms that live in these modules; its root is the space around all modules."""
    root = Module("", "")
    for atom, home in enumerate(homes):
        module = root
        for name in home:
            if name not in module.children:
                module.children[name] = Module(_join(module.path, name), name)
            module = module.children[name]
        module.atoms.append(atom)
    _count(root)
    _fold(root)
    for name, child in list(root.children.items()):
        root.children[name] = _skip_lone(child)
    return root


def way_to(root: Module, atom: int) -> list[str]:
    """The paths of the modules around an atom that can be opened, outermost first."""
    for child in root.children.values():
        if atom in child.below():
            return [] if child.is_one_box else [child.path, *way_to(child, atom)]
    return []


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _count(module: Module) -> int:
    module.inside = len(module.atoms) + sum(_count(child) for child in module.children.values())
    return module.inside


def _skip_lone(module: Module) -> Module:
    """A module with nothing of its own but one other module is shown as that one, under both names."""
    if not module.atoms and len(module.children) == 1:
        (child,) = module.children.values()
        return _skip_lone(Module(child.path, _join(module.name, child.name), child.atoms, child.children, child.inside))
    for name, child in list(module.children.items()):
        module.children[name] = _skip_lone(child)
    return module


def _fold(module: Module) -> None:
    """Fold long runs of numbered modules into ranges, here and below."""
    for child in module.children.values():
        _fold(child)
    numbers = sorted(int(name) for name in module.children if name.isdecimal() and name == str(int(name)))
    if len(numbers) <= LONGEST_RUN:
        return
    folded: dict[str, Module] = {}
    for run in _runs(numbers):
        name = f"[{run[0]}-{run[-1]}]"
        folded[name] = _range(module, name, (module.children.pop(str(number)) for number in run))
    module.children = {**module.children, **folded}


def _runs(numbers: list[int]) -> list[list[int]]:
    size = LONGEST_RUN
    while len(numbers) > size * LONGEST_RUN:
        size *= 2
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def _range(module: Module, name: str, members: Iterable[Module]) -> Module:
    children = {member.name: member for member in members}
    return Module(_join(module.path, name), name, [], children, sum(child.inside for child in children.values()))
