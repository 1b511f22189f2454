"""Facts about the process and the machine that a trial keeps."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
from typing import Any

import numpy as np
import torch


def environment() -> dict[str, Any]:
    """Versions, device, command and source revision, as plain values."""
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "command": " ".join(sys.argv),
        "folder": os.getcwd(),
        "threads": torch.get_num_threads(),
        "device": _device(),
    }
    return {**facts, **_revision()}


def _device() -> str:
    # Asking for the device's name starts CUDA; only a process that uses it already is asked.
    if torch.cuda.is_initialized():
        return torch.cuda.get_device_name()
    return platform.processor() or platform.machine()


def _revision() -> dict[str, Any]:
    """The git revision of the script that runs, and whether its tree has changes; nothing where there is none."""
    script = os.path.abspath(sys.argv[0]) if sys.argv and sys.argv[0] else ""
    folder = os.path.dirname(script) if os.path.isfile(script) else os.getcwd()
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return {}
    return {"revision": commit, "revision_dirty": bool(_git(folder, "status", "--porcelain", "-uno"))}


def _git(folder: str, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, timeout=2, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
