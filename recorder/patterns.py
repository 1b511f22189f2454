"""Patterns for the names of nodes: globs, and compiled regular expressions."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stepscope.recorder.errors import SelectionError

Given = str | re.Pattern[str]
"""A pattern as the user gives it."""

_EXPECTED = 'expected a glob such as "model.blocks.*", a compiled regular expression, or a list of them'


@dataclass(frozen=True)
class NamePattern:
    """A pattern: how it was written, and as an expression to search for in a name.

    >>> NamePattern.of("include", "model.*.attn").fits(["model.blocks.0.attn"])
    True
    """

    written: str
    expression: re.Pattern[str]

    @classmethod
    def of(cls, argument: str, given: object) -> NamePattern:
        """A pattern out of what was given as ``argument``.

        Raises:
            SelectionError: it is neither a glob nor a compiled regular expression.
        """
        if isinstance(given, str):
            return cls(repr(given), re.compile(r"\A" + fnmatch.translate(given)))
        if isinstance(given, re.Pattern) and isinstance(given.pattern, str):
            return cls(f"re.compile({given.pattern!r})", given)
        raise SelectionError(f"{argument}: {given!r} is no pattern; {_EXPECTED}")

    def fits(self, names: Iterable[str]) -> bool:
        """Whether any of these names fits."""
        return any(self.expression.search(name) for name in names)

    def near(self, names: Iterable[str]) -> list[str]:
        """Some names that look like what was written."""
        known = list(dict.fromkeys(names))
        literal = re.sub(r"re\.compile|[^\w.]", "", self.written)
        return difflib.get_close_matches(literal, known, n=5, cutoff=0.4) or known[:5]


def patterns_of(argument: str, given: Given | Sequence[Given] | None) -> tuple[NamePattern, ...]:
    """The patterns of an argument that takes one, several, or none.

    Raises:
        SelectionError: one of them is no pattern.
    """
    if given is None:
        return ()
    if isinstance(given, (str, re.Pattern)):
        return (NamePattern.of(argument, given),)
    if not isinstance(given, Iterable):
        raise SelectionError(f"{argument}={given!r}: {_EXPECTED}")
    return tuple(NamePattern.of(argument, pattern) for pattern in given)
