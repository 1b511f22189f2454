"""Peak memory of a contender, in a process of its own."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from timing import Contender
from workload_list import WORKLOADS
from workloads import Workload

STEPS = 6


def peak_memory(script: str, workload: str, contender: str) -> int | None:
    """Peak resident memory in bytes; ``script`` must answer ``--memory WORKLOAD CONTENDER``. None if it failed."""
    command = [sys.executable, script, "--memory", workload, contender]
    done = subprocess.run(command, capture_output=True, text=True)
    return int(json.loads(done.stdout.splitlines()[-1])) if done.returncode == 0 else None


def answer(workload_name: str, make: Callable[[Workload, Path], Contender]) -> None:
    """In the child: run some steps and print the peak."""
    workload = next(workload for workload in WORKLOADS if workload.name == workload_name)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        contender = make(workload, Path(folder))
        for _ in range(STEPS):
            contender.run()
        contender.drain()
        contender.close()
        print(json.dumps(_peak()))


def _peak() -> int:
    """Bytes. Not ``ru_maxrss`` where it can be helped: that begins with what the parent process had."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024
