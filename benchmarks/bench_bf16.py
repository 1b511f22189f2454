"""What ``precision="bf16"`` saves: kilobytes a step on disk, with exact raw neurons and with rounded ones.

    python benchmarks/bench_bf16.py

Each workload is recorded twice from the same start, every step.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Literal

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from ours import size_of
from table import markdown
from workload_list import WORKLOADS
from workloads import Workload

from stepscope.recorder import Every, Recorder

NAMES = ("demo, 20 iterations", "transformer, 6 blocks, d=256")


def kilobytes(workload: Workload, precision: Literal["float32", "bf16"], steps: int, folder: Path) -> float:
    """Of a step on disk, all files together."""
    torch.manual_seed(0)
    training = workload.make()
    recorder = Recorder(folder, trial=precision, schedule=Every(1), precision=precision)
    recorder.watch(training.modules, training.optimizer)
    for _ in range(steps):
        with recorder.step() as step:
            training.step(step)
    recorder.close()
    assert recorder.path is not None
    return size_of(recorder.path) / steps / 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8, help="how many steps of each workload")
    steps = parser.parse_args().steps
    rows = []
    for workload in WORKLOADS:
        if workload.name in NAMES:
            with tempfile.TemporaryDirectory() as folder:
                exact = kilobytes(workload, "float32", steps, Path(folder))
                rounded = kilobytes(workload, "bf16", steps, Path(folder))
            rows.append([workload.name, f"{exact:.0f}", f"{rounded:.0f}", f"{1 - rounded / exact:.0%}"])
    print(markdown(("workload", "kB a step, exact", "bf16", "saved"), rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
