"""The lock that keeps a trial to one writer, and that a dead process does not hold."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from pathlib import Path
from typing import Any

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
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    started = _start_time(pid)
    return started is None or owner.get("started") is None or started == owner["started"]


def take(trial: Path) -> bool:
    """Take the lock for this process; False if a process that may be alive holds it."""
    for _ in range(3):
        try:
            descriptor = os.open(trial / LOCK_NAME, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            owner = owner_of(trial)
            if owner is not None and is_alive(owner):
                return False
            with contextlib.suppress(FileNotFoundError):
                (trial / LOCK_NAME).unlink()
            continue
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            pid = os.getpid()
            json.dump({"pid": pid, "host": socket.gethostname(), "started": _start_time(pid)}, file)
        return True
    return False


def release(trial: Path) -> None:
    """Give the lock back."""
    with contextlib.suppress(FileNotFoundError):
        (trial / LOCK_NAME).unlink()


def _start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None where the system does not tell."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 else None
