"""Addresses: groups and trials that are not in a local folder (``s3://bucket/runs``, ``memory://runs``)."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path, PurePath
from typing import TypeGuard

from stepscope.store.errors import StoreError

_COLLAPSED = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/(?!/)")
_SECRET = re.compile(r"(?<=://)[^/@]*@")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


def is_address(place: object) -> TypeGuard[str]:
    """Whether this is the address of something remote, and no local folder.

    Raises:
        StoreError: it is a ``Path`` made of an address, which has lost a slash.
    """
    if isinstance(place, PurePath) and _COLLAPSED.match(str(place)):
        raise StoreError(f"{place} was an address before Path() took a slash from it; give addresses as text")
    return isinstance(place, str) and "://" in place


def place(text: str) -> Path | str:
    """What was given on a command line: an address stays text, everything else is a path."""
    return text if is_address(text) else Path(text)


def shown(address: str) -> str:
    """An address as it may be shown and kept: without a password, and without slashes at its end."""
    return _SECRET.sub("", address).rstrip("/")


def split(address: str) -> tuple[str, str]:
    """What a trial's address consists of: that of its group, and its name."""
    group, _, name = address.rstrip("/").rpartition("/")
    return group, name


def folder_name(address: str) -> str:
    """A local folder's name for an address: readable, and another one for each address."""
    readable = _NOT_IN_NAMES.sub("-", shown(address)).strip("-.")[-60:]
    return f"{readable}-{hashlib.blake2b(address.rstrip('/').encode(), digest_size=6).hexdigest()}"
