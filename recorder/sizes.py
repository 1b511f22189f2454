"""Numbers of bytes, as a person writes them: 268435456, "256MiB", "1.5 GB"."""

from __future__ import annotations

import re

from stepscope.recorder.errors import RecorderError

_UNITS = {"": 1, "b": 1, "bytes": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_WRITTEN = ("bytes", "kB", "KiB", "MB", "MiB", "GB", "GiB", "TB", "TiB")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)


def as_bytes(given: int | str, name: str, *, least: int) -> int:
    """A number of bytes from what a user may give for the argument ``name``.

    >>> as_bytes("1.5 kB", "max_bytes", least=0)
    1500

    Raises:
        RecorderError: it is no number of bytes, or less than the least that makes sense.
    """
    size = _parsed(given)
    if size is None:
        raise RecorderError(f"{name}={given!r}: expected a number of bytes, such as 268435456, '256MiB' or '2GB'")
    if size < least:
        raise RecorderError(f"{name}={given!r}: expected at least {as_text(least)}")
    return size


def _parsed(given: object) -> int | None:
    if isinstance(given, int) and not isinstance(given, bool):
        return given
    found = _SIZE.fullmatch(given.strip()) if isinstance(given, str) else None
    if found is None or found[2].lower() not in _UNITS:
        return None
    return int(float(found[1]) * _UNITS[found[2].lower()])


def as_text(size: int) -> str:
    """A number of bytes, short: ``"256 MiB"``, ``"2 GB"``, ``"1,234 bytes"``."""
    exact = [(size // _UNITS[unit.lower()], unit) for unit in _WRITTEN if size and size % _UNITS[unit.lower()] == 0]
    return "{:,} {}".format(*min(exact, default=(size, "bytes")))
