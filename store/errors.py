"""The errors of the store. Each message says what was given, what was expected, and what to do."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator


class StoreError(Exception):
    """Base of all errors of the store."""


class TrialExistsError(StoreError):
    """A trial of this name exists, and it was asked for that this be an error."""


class TrialInUseError(StoreError):
    """Another live process (or recorder) is writing to this trial."""


class NotARecordingError(StoreError):
    """The folder holds no recording."""


class DamagedError(StoreError):
    """A part of a recording cannot be read; the rest can."""


class UnreachableError(StoreError, OSError):
    """A remote file system does not answer, or refuses."""


class UnknownNameError(StoreError, KeyError):
    """A node, role, statistic, trial or step was asked for that does not exist."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


def unknown(what: str, given: object, known: Iterable[object]) -> UnknownNameError:
    """The error for a name that does not exist, with the names that are near it."""
    names = [str(name) for name in known]
    near = difflib.get_close_matches(str(given), names, n=3, cutoff=0.5)
    if near:
        hint = f"did you mean {' or '.join(repr(name) for name in near)}?"
    elif names:
        shown = ", ".join(repr(name) for name in names[:8])
        hint = f"there is {shown}{f' and {len(names) - 8} more' if len(names) > 8 else ''}"
    else:
        hint = "there is none"
    return UnknownNameError(f"no {what} {given!r}; {hint}")


@contextlib.contextmanager
def damaged_unless(what: str) -> Iterator[None]:
    """Turn the errors of reading what makes no sense into a ``DamagedError`` that says what it is."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, MemoryError) as error:
        if isinstance(error, StoreError):
            raise
        raise DamagedError(f"{what} makes no sense ({type(error).__name__}: {error})") from error
