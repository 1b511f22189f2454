"""A training run with one known mistake in it: what it is, where it lies, and how a finding would have to call it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from stepscope.examples.broken.lab import Lab

IN_STEP, AT_SET_UP = "# bug: ", "# set-up bug: "
"""Comments that mark the faulty line of a case, by its name. Only lines of the first kind run within a step."""

HELD_BACK = ".held_back."
"""In the name of a module with runs that nobody who writes rules has read."""


class Line(NamedTuple):
    """A line of code; ``in_step`` says whether it runs within a training step, so that a recording can know it."""

    file: str
    number: int
    in_step: bool


@dataclass(frozen=True)
class Case:
    """A broken run and its fixed twin, which differ in one mistake.

    Attributes:
        name: the name of the function that trains it.
        train: trains and records; ``lab.fixed`` says which of the two.
        rules: the rules whose name tells the true cause.
        words: a finding with one of these in its summary tells it, too.
        nodes: where the cause lies.
        onset: the first step that it touches, if it is not wrong from the start.
    """

    name: str
    train: Callable[[Lab], None]
    rules: tuple[str, ...]
    words: tuple[str, ...]
    nodes: tuple[str, ...]
    onset: int | None

    @property
    def cause(self) -> str:
        """What is wrong, in a sentence."""
        return " ".join(_paragraphs(self.train)[0].split())

    @property
    def source(self) -> str:
        """The published collection that has this mistake."""
        return " ".join(_paragraphs(self.train)[-1].removeprefix("Source: ").split())

    @property
    def held_back(self) -> bool:
        """Whether no rule may be tuned to it."""
        return HELD_BACK in self.train.__module__

    @property
    def line(self) -> Line:
        """The faulty line, found by its comment."""
        file = Path(inspect.getsourcefile(self.train) or "")
        for number, text in enumerate(file.read_text().splitlines(), start=1):
            for mark in (IN_STEP, AT_SET_UP):
                if text.endswith(mark + self.name):
                    return Line(str(file), number, mark == IN_STEP)
        raise LookupError(f"no line of {file.name} ends with '{IN_STEP}{self.name}' or '{AT_SET_UP}{self.name}'")


def broken(
    *, rules: tuple[str, ...] = (), words: tuple[str, ...] = (), nodes: tuple[str, ...], onset: int | None = None
) -> Callable[[Callable[[Lab], None]], Case]:
    """Make a case of a training function; its docstring is the cause, and ``Source: ...``."""

    def make(train: Callable[[Lab], None]) -> Case:
        return Case(train.__name__, train, rules, words, nodes, onset)

    return make


def _paragraphs(function: Callable[[Lab], None]) -> list[str]:
    return inspect.cleandoc(function.__doc__ or "").split("\n\n")
