"""Which modules and parameters of a watched model are recorded, and which are left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from stepscope.recorder.errors import SelectionError
from stepscope.recorder.patterns import Given, NamePattern, patterns_of


@dataclass(frozen=True)
class Place:
    """What a selection looks at: a module, or a parameter or buffer together with the module that owns it.

    ``names`` are those that a pattern may fit: of a parameter, its own and its owner's. ``depth`` counts modules
    from the model itself, which is 0.
    """

    names: tuple[str, ...]
    depth: int
    module: nn.Module


@dataclass(frozen=True)
class Selection:
    """What ``watch(include=..., exclude=..., depth=..., types=...)`` asked for; empty, it chooses everything."""

    include: tuple[NamePattern, ...] = ()
    exclude: tuple[NamePattern, ...] = ()
    depth: int | None = None
    types: tuple[type[nn.Module], ...] = ()

    def __bool__(self) -> bool:
        return self != Selection()

    def __str__(self) -> str:
        parts = [f"include={pattern.written}" for pattern in self.include]
        parts += [f"exclude={pattern.written}" for pattern in self.exclude]
        parts += [f"depth={self.depth}"] if self.depth is not None else []
        return ", ".join(parts + [f"types={kind.__name__}" for kind in self.types])

    def chooses(self, place: Place) -> bool:
        """Whether a place is recorded."""
        if self.depth is not None and place.depth > self.depth:
            return False
        if self.types and not isinstance(place.module, self.types):
            return False
        if self.include and not any(pattern.fits(place.names) for pattern in self.include):
            return False
        return not any(pattern.fits(place.names) for pattern in self.exclude)

    def check(self, places: Sequence[Place]) -> None:
        """Refuse a selection that cannot be meant.

        Raises:
            SelectionError: a pattern or a type fits nothing in these models, or nothing is left to be recorded.
        """
        for argument, patterns in (("include", self.include), ("exclude", self.exclude)):
            for pattern in patterns:
                if not any(pattern.fits(place.names) for place in places):
                    near = ", ".join(pattern.near(name for place in places for name in place.names))
                    raise SelectionError(f"{argument}={pattern.written} fits nothing in the models; there is {near}")
        for kind in self.types:
            if not any(isinstance(place.module, kind) for place in places):
                there = ", ".join(sorted({type(place.module).__name__ for place in places})[:20])
                raise SelectionError(f"types={kind.__name__}: no module is one; there is {there}")
        if not any(self.chooses(place) for place in places):
            raise SelectionError(f"{self}: together these leave nothing of the models to record")


def make_selection(
    include: Given | Sequence[Given] | None, exclude: Given | Sequence[Given] | None, depth: int | None, types: Any
) -> Selection:
    """A selection from the arguments of ``watch``.

    Raises:
        SelectionError: an argument is of a wrong kind.
    """
    if depth is not None and (isinstance(depth, bool) or not isinstance(depth, int) or depth < 0):
        raise SelectionError(f"depth={depth!r}: expected a whole number, 0 (the model itself) or more")
    return Selection(patterns_of("include", include), patterns_of("exclude", exclude), depth, _classes(types))


def _classes(given: Any) -> tuple[type[nn.Module], ...]:
    if given is None:
        return ()
    classes = tuple(given) if isinstance(given, Iterable) and not isinstance(given, (type, str)) else (given,)
    for kind in classes:
        if not isinstance(kind, type) or not issubclass(kind, nn.Module):
            raise SelectionError(f"types: {kind!r} is no class of modules; expected one such as nn.Linear, or a list")
    return classes
