"""A fault that can be planted into many trainings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stepscope.examples.broken.seeded.training import Training

Plant = Callable[[Training], tuple[str, ...] | None]
"""Plants a fault, and gives the nodes where it lies; None, and nothing is changed, where it has no place."""


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        name: the name of the function that plants it.
        plant: see ``Plant``.
        rules: the rules whose name tells this cause.
        words: a finding with one of these in its summary tells it, too.
    """

    name: str
    plant: Plant
    rules: tuple[str, ...]
    words: tuple[str, ...]

    @property
    def cause(self) -> str:
        """What is wrong, in a sentence."""
        return " ".join((self.plant.__doc__ or "").split("Source:")[0].split())

    @property
    def source(self) -> str:
        """Where the fault is published."""
        return " ".join((self.plant.__doc__ or "").partition("Source:")[2].split())


def fault(*, rules: tuple[str, ...] = (), words: tuple[str, ...] = ()) -> Callable[[Plant], Fault]:
    """Make a fault of a function that plants it; its docstring is the cause, and ``Source: ...``."""

    def make(plant: Plant) -> Fault:
        return Fault(plant.__name__, plant, rules, words)

    return make
