"""What a whole run costs: 100 steps with the default schedule, which records the first, over 100 plain ones.

    python benchmarks/bench_runs.py

Until the recording is on disk: what the writer's thread takes from the training is in it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from machine import describe
from ours import NoProbe
from table import markdown
from timing import Contender, Times, interleave, ratio
from workload_list import WORKLOADS
from workloads import Workload

from stepscope.recorder import Recorder

STEPS = 100
ROUNDS = 7
BAR = 1.03
CHOSEN = ("MLP 4x256, batch 32", "demo, 1 iteration", "demo, 20 iterations", "LSTM 2x128, 32 x 64 characters")


def contenders(workload: Workload, folder: Path) -> list[Contender]:
    plain, ours = workload.make(), workload.make()
    recorder = Recorder(folder, trial="run")
    recorder.watch(ours.modules, ours.optimizer)

    def run_plain() -> None:
        for _ in range(STEPS):
            plain.step(NoProbe())

    def run_ours() -> None:
        for _ in range(STEPS):
            with recorder.step() as step:
                ours.step(step)
        recorder.flush()

    return [Contender("plain", run_plain), Contender("ours", run_ours, recorder.flush, close=recorder.close)]


def measure(workload: Workload) -> dict[str, Times]:
    with tempfile.TemporaryDirectory() as folder:
        both = contenders(workload, Path(folder))
        found = interleave(both, ROUNDS, warm_up=1)
        both[1].close()
    return found


def main() -> int:
    torch.set_num_threads(1)
    rows = []
    for workload in WORKLOADS:
        if workload.name in CHOSEN:
            found = measure(workload)
            clocks = [f"{ratio(found, 'ours', 'plain', clock):.3f}x" for clock in ("wall", "process")]
            rows.append([workload.name, f"{found['plain'].median():.3f}", *clocks, f"{BAR:.2f}x"])
    head = (f"{STEPS} steps", "plain s", "with the recorder", "processor time", "bar")
    print(f"{describe()}\n\n{markdown(head, rows)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
