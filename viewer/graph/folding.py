"""Long runs become ranges: of numbered modules, and of tensors that are in no further module."""

from __future__ import annotations

from collections.abc import Iterable

from stepscope.viewer.graph.modules import Module, join_path

LONGEST_RUN = 12
"""More numbered modules than this on one level are folded into ranges."""
MOST_ATOMS = 400
"""More tensors than this directly in one module are folded into ranges, in the graph's order."""
_ATOMS_IN_RANGE = 100


def fold(module: Module) -> None:
    """Fold long runs into ranges, in a module and in those below."""
    for child in module.children.values():
        fold(child)
    _fold_modules(module)
    if len(module.atoms) > MOST_ATOMS:
        _fold_atoms(module)


def _fold_modules(module: Module) -> None:
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
    return Module(join_path(module.path, name), name, [], children, sum(child.inside for child in children.values()))


def _fold_atoms(module: Module) -> None:
    for start in range(0, len(module.atoms), _ATOMS_IN_RANGE):
        some = module.atoms[start : start + _ATOMS_IN_RANGE]
        name = f"tensors [{start}-{start + len(some) - 1}]"
        module.children[name] = Module(join_path(module.path, name), name, some, {}, len(some))
    module.atoms = []
