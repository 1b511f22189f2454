"""The spool: local folders in which trials are written before they are at their address."""

from __future__ import annotations

import contextlib
from pathlib import Path

from stepscope.store import lock
from stepscope.store.files import SUFFIX
from stepscope.store.group import is_trial
from stepscope.store.remote.places import spool_folder


def is_spooled(trial: Path, address: str) -> bool:
    """Whether a trial lies in the spool of this address."""
    return trial.resolve().parent == spool_folder(address).resolve()


def spooled_beside(trial: Path) -> list[Path]:
    """The other trials in the same spool."""
    return [other for other in sorted(trial.parent.iterdir()) if other != trial and is_trial(other)]


def remove_uploaded(trial: Path) -> None:
    """Remove a trial from the spool, once all of it is at its address; what is not a recording's is left."""
    for file in (*trial.glob(f"*{SUFFIX}"), trial / lock.LOCK_NAME):
        file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        trial.rmdir()
