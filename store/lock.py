"""The lock that keeps a trial to one writer, and that a dead process does not hold."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None  # type: ignore[assignment]

LOCK_NAME = "writer.lock"


def owner_of(trial: Path) -> dict[str, Any] | None:
    """Who holds the lock of a trial: ``pid``, ``host``, ``started``; None if nobody does."""
    try:
        owner = json.loads((trial / LOCK_NAME).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return owner if isinstance(owner, dict) else None


def is_alive(owner: dict[str, Any]) -> bool:
    """Whether the owner may still be running; False only if it is provably dead, on this machine."""
    if owner.get("host") != socket.gethostname():
        return True
    pid = owner.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    started = _start_time(pid)
    return started is None or owner.get("started") is None or started == owner["started"]


def is_held(trial: Path) -> bool:
    """Whether a process that may be alive holds the lock of a trial."""
    owner = owner_of(trial)
    return owner is not None and is_alive(owner)


def take(trial: Path) -> bool:
    """Take the lock for this process; False if a process that may be alive holds it."""
    with one_at_a_time(trial):
        if is_held(trial):
            return False
        # Written beside and moved into place: nobody ever sees a lock without its owner.
        beside = trial / f"{LOCK_NAME}.{os.getpid()}"
        beside.write_text(json.dumps(this_process()), "utf-8")
        beside.replace(trial / LOCK_NAME)
        return True


def this_process() -> dict[str, Any]:
    """This process as the owner of a lock."""
    pid = os.getpid()
    return {"pid": pid, "host": socket.gethostname(), "started": _start_time(pid)}


def release(trial: Path) -> None:
    """Give the lock back."""
    with contextlib.suppress(OSError):
        (trial / LOCK_NAME).unlink()


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Keep other processes out meanwhile, where the file system can; the system ends this when a process dies."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None where the system does not tell."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 else None
