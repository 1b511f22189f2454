"""The lock that keeps a trial to one writer, and that a dead process does not hold.

Of a process of this machine the system tells whether it runs. One of another machine (or container) is known by its
heartbeat: while it lives, it touches the lock every ``BEAT`` seconds (see ``heartbeat.py``).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None  # type: ignore[assignment]

LOCK_NAME = "writer.lock"
BEAT = 10.0
MISSED_BEATS = 6
"""A process elsewhere that has not touched its lock for so many beats counts as dead."""


def owner_of(trial: Path) -> dict[str, Any] | None:
    """Who holds the lock of a trial: ``pid``, ``host``, ``started``; None if nobody does."""
    try:
        owner = json.loads((trial / LOCK_NAME).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return owner if isinstance(owner, dict) else None


def is_elsewhere(owner: dict[str, Any]) -> bool:
    """Whether an owner runs where this process cannot see it: on another machine, or in another container."""
    namespace = owner.get("namespace")
    return owner.get("host") != socket.gethostname() or (namespace is not None and namespace != _namespace())


def is_alive(owner: dict[str, Any], silence: float = 0.0) -> bool:
    """Whether the owner may still be running, having not touched its lock for so many seconds.

    False only if it is provably dead on this machine, or elsewhere and silent for too long.
    """
    if is_elsewhere(owner):
        beat = owner.get("beat")
        return not isinstance(beat, (int, float)) or silence <= MISSED_BEATS * beat
    if owner.get("boot") not in (None, _boot()):
        return False
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


def is_held(trial: Path, now: float | None = None) -> bool:
    """Whether a process that may be alive holds the lock of a trial; ``now`` by the clock of its file system."""
    owner = owner_of(trial)
    return owner is not None and is_alive(owner, _silence(trial, time.time() if now is None else now))


def last_beat(trial: Path) -> float | None:
    """When a writer elsewhere last touched the lock; None if there is none whose silence would say anything."""
    owner = owner_of(trial)
    if owner is None or not is_elsewhere(owner) or owner.get("beat") is None:
        return None
    with contextlib.suppress(OSError):
        return (trial / LOCK_NAME).stat().st_mtime
    return None


def _silence(trial: Path, now: float) -> float:
    """Seconds since the lock was last touched."""
    try:
        return now - (trial / LOCK_NAME).stat().st_mtime
    except OSError:
        return 0.0


def take(trial: Path) -> bool:
    """Take the lock for this process; False if a process that may be alive holds it."""
    with one_at_a_time(trial):
        # Written beside and moved into place: nobody ever sees a lock without its owner. Its time is that of the file
        # system's clock, by which the heart of whoever holds the lock beats, too.
        beside = trial / f"{LOCK_NAME}.{os.getpid()}"
        beside.write_text(json.dumps(_new_owner()), "utf-8")
        if is_held(trial, beside.stat().st_mtime):
            beside.unlink()
            return False
        beside.replace(trial / LOCK_NAME)
        return True


def _new_owner() -> dict[str, Any]:
    """This process; the token tells this lock from any other that it may take."""
    return {**this_process(), "beat": BEAT, "token": secrets.token_hex(8)}


def this_process() -> dict[str, Any]:
    """This process as the owner of a lock."""
    pid = os.getpid()
    place = {"host": socket.gethostname(), "boot": _boot(), "namespace": _namespace()}
    return {**place, "pid": pid, "started": _start_time(pid)}


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


def _boot() -> str | None:
    """What tells this run of the system from the one before; None where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip()
    except OSError:
        return None


def _namespace() -> str | None:
    """What tells the processes of this container from those of others; None where the system does not tell."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None
