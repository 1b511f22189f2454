"""Where remote trials are on this machine: the spool of what is to be uploaded, and the cache of what was fetched."""

from __future__ import annotations

import os
from pathlib import Path

from stepscope.store.address import folder_name, shown

ADDRESS_FILE = "address.txt"


def spool_folder(address: str) -> Path:
    """Where the trials of a group are written before they are uploaded; made if it is missing.

    In ``$STEPSCOPE_SPOOL``, else ``$XDG_STATE_HOME/stepscope/spool``, else ``~/.local/state/stepscope/spool``.
    """
    return _made("STEPSCOPE_SPOOL", "XDG_STATE_HOME", ".local/state", "spool", address)


def cache_folder(address: str) -> Path:
    """Where what was fetched of a group is kept; made if it is missing.

    In ``$STEPSCOPE_CACHE``, else ``$XDG_CACHE_HOME/stepscope``, else ``~/.cache/stepscope``.
    """
    return _made("STEPSCOPE_CACHE", "XDG_CACHE_HOME", ".cache", "", address)


def _made(own: str, common: str, usual: str, inside: str, address: str) -> Path:
    if os.environ.get(own):
        base = Path(os.environ[own])
    else:
        base = Path(os.environ.get(common) or Path.home() / usual) / "stepscope" / inside
    folder = base.expanduser().absolute() / folder_name(address)
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / ADDRESS_FILE).write_text(shown(address) + "\n", "utf-8")
    return folder


def bytes_in(folder: Path) -> int:
    """The size of all files in a folder."""
    return sum(entry.stat().st_size for entry in folder.rglob("*") if entry.is_file())
