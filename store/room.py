"""Limits of bytes, and how far a recording is from them."""

from __future__ import annotations

from dataclasses import dataclass

from stepscope.store.errors import StoreError

LEAST_BYTES = 1 << 17
"""Of a limit for a trial that makes sense."""

_FILES = 16
"""Into how many files details are spread at least: one at a time is rewritten, beside the old one."""

_AT_ONCE = 8
"""The share of the limit that is freed at once, so that files are not rewritten for every step."""

_WORTHWHILE = 32
"""If less than this share can be freed, new steps have less detail instead."""

_RESERVED = 1 << 14
"""Bytes that are left for what is written at the end, and for the lock."""


@dataclass(frozen=True)
class Limits:
    """Of bytes: ``trial`` for all files of a trial together, ``step`` for what one step adds; None is no limit.

    To keep them, neurons are left out; statistics never are.
    """

    trial: int | None = None
    step: int | None = None

    def __post_init__(self) -> None:
        if self.trial is not None and self.trial < LEAST_BYTES:
            raise StoreError(f"a limit of {self.trial} bytes for a trial; expected {LEAST_BYTES} or more, or None")
        if self.step is not None and self.step < 1:
            raise StoreError(f"a limit of {self.step} bytes for a step; expected 1 or more, or None")


@dataclass(frozen=True)
class Room:
    """What the limit of a trial means for its files."""

    limit: int

    @property
    def of_a_file(self) -> int:
        """The size at which a file of details is full."""
        return self.limit // _FILES

    @property
    def freed_at_once(self) -> int:
        """How much is freed when something has to be."""
        return self.limit // _AT_ONCE

    @property
    def worthwhile(self) -> int:
        """For how little no file is rewritten."""
        return self.limit // _WORTHWHILE

    def missing(self, used: int, needed: int, largest_file: int) -> int:
        """How much would be too much, if that many more bytes were written, with room to rewrite a file."""
        return used + needed - (self.limit - _RESERVED - largest_file)
