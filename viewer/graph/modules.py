"""A module in the picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property


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

    @cached_property
    def contents(self) -> tuple[int, ...]:
        """All atoms in it and below it, in the graph's order; to be asked for when the tree is complete."""
        return tuple(sorted([*self.atoms, *(atom for child in self.children.values() for atom in child.contents)]))


def join_path(path: str, name: str) -> str:
    """The path of a module in another."""
    return f"{path}.{name}" if path else name
