"""Where the layers of two trials differ: in their class or settings, or because only one of the trials has them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from stepscope.store.records import ModuleInfo

_BETWEEN = re.compile(r", (?![^(]*\))")
"""What parts settings: a comma that is in no parentheses, as those of ``kernel_size=(3, 3)`` are."""


@dataclass(frozen=True)
class LayerDifference:
    """A module and what only this trial has of it, and only the other; a dash where a trial has no such module."""

    path: str
    this: str
    other: str


def layers_apart(this: Sequence[ModuleInfo], other: Sequence[ModuleInfo]) -> list[LayerDifference]:
    """The modules that differ, in the order of this trial's; those that only the other has come last.

    Of two settings the parts are told that differ; of modules of one trial alone the outermost ones.

    >>> one = ModuleInfo("model.0", "Conv1d", (), settings="1, 4, kernel_size=(2,)")
    >>> layers_apart([one], [ModuleInfo("model.0", "Conv1d", (), settings="1, 4, kernel_size=(3,)")])
    [LayerDifference(path='model.0', this='kernel_size=(2,)', other='kernel_size=(3,)')]
    """
    if not this or not other:
        return []
    mine, theirs = ({module.path: module for module in modules} for modules in (this, other))
    both = [_apart(module, theirs[module.path]) for module in this if module.path in theirs]
    here = [LayerDifference(path, mine[path].module_class, "–") for path in _outermost(mine, theirs)]
    there = [LayerDifference(path, "–", theirs[path].module_class) for path in _outermost(theirs, mine)]
    order = {module.path: place for place, module in enumerate(this)}
    found = [one for one in both if one is not None] + here
    return sorted(found, key=lambda one: order[one.path]) + there


def _apart(this: ModuleInfo, other: ModuleInfo) -> LayerDifference | None:
    if this.module_class != other.module_class:
        return LayerDifference(this.path, this.module_class, other.module_class)
    if not this.settings or not other.settings:  # of an older recording: not known
        return None
    mine, theirs = (_BETWEEN.split(module.settings) for module in (this, other))
    if mine == theirs:
        return None
    only_mine = [part for place, part in enumerate(mine) if part not in _at(theirs, place, part)]
    only_theirs = [part for place, part in enumerate(theirs) if part not in _at(mine, place, part)]
    return LayerDifference(this.path, ", ".join(only_mine) or "–", ", ".join(only_theirs) or "–")


def _at(parts: list[str], place: int, part: str) -> list[str]:
    """What a part is to be found in: anywhere if it has a name, else at its place."""
    return parts if "=" in part else parts[place : place + 1]


def _outermost(modules: dict[str, ModuleInfo], others: dict[str, ModuleInfo]) -> list[str]:
    """The paths that the others have not, without those inside of one of them."""
    found: list[str] = []
    for path in modules:
        if path not in others and not any(path.startswith(f"{outer}.") for outer in found):
            found.append(path)
    return found
