"""Peak memory of a contender, in a process of its own."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

STEPS = 6


def peak_memory(script: str, workload: str, contender: str) -> int | None:
    """Peak resident memory in bytes; ``script`` must answer ``--memory WORKLOAD CONTENDER``. None if it failed."""
    command = [sys.executable, script, "--memory", workload, contender]
    done = subprocess.run(command, capture_output=True, text=True)
    return int(json.loads(done.stdout.splitlines()[-1])) if done.returncode == 0 else None


def answer(workload_name: str, contender_name: str) -> None:
    """In the child: run some steps and print the peak."""
    from contenders import CONTENDERS
    from workload_list import WORKLOADS

    workload = next(workload for workload in WORKLOADS if workload.name == workload_name)
    with tempfile.TemporaryDirectory() as folder:
        contender = CONTENDERS[contender_name](workload, Path(folder))
        for _ in range(STEPS):
            contender.run()
        contender.drain()
        contender.close()
        print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
