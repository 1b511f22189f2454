"""The lines around a line of the user's code, as long as its file still holds what was recorded."""

from __future__ import annotations

import textwrap
import tokenize
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from stepscope.store.records import SourceLine

AROUND = 2
_LARGEST = 2 << 20
"""Bytes of a file that is read for this: more is no program that somebody wrote."""


class Excerpt(NamedTuple):
    """Some lines of code with their common indentation taken off; ``here`` is the one that was recorded."""

    before: str
    here: str
    after: str


def excerpt(source: SourceLine) -> Excerpt:
    """What stands around a line; the recorded line alone if its file is not here, or was edited since.

    >>> excerpt(SourceLine("train.py", 7, "loss = model(x).mean()"))    # and there is no such file
    Excerpt(before='', here='loss = model(x).mean()', after='')
    """
    lines = _lines_of(source.file)
    place = source.line - 1
    if not (0 <= place < len(lines) and source.text and lines[place].strip() == source.text):
        return Excerpt("", source.text, "")
    first = max(0, place - AROUND)
    shown = textwrap.dedent("\n".join(lines[first : place + AROUND + 1])).split("\n")
    here = place - first
    return Excerpt("\n".join(shown[:here]).strip("\n"), shown[here].rstrip(), "\n".join(shown[here + 1 :]).strip("\n"))


def _lines_of(file: str) -> list[str]:
    """The lines of a program's file; none if it cannot be read."""
    path = Path(file)
    try:
        if path.suffix != ".py" or (found := path.stat()).st_size > _LARGEST:
            return []
        return _read(path, found.st_mtime_ns)
    except (OSError, SyntaxError, ValueError):  # not here, in no encoding that Python knows, or of an impossible name
        return []


@lru_cache(maxsize=64)
def _read(path: Path, _: int) -> list[str]:
    with tokenize.open(path) as file:
        return file.read().split("\n")
