"""What a whole run costs at the default schedule over the plain run; and, apart, what the health check costs.

    python benchmarks/bench_runs.py
    python benchmarks/bench_runs.py --only MLP --seconds 30

Each run is a new trial, until its recording is on disk: the first recorded steps, which are the dearest, and what the
writer's thread takes from the training are in it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from machine import describe
from ours import NoProbe
from table import markdown
from timing import Contender, interleave, ratio
from workload_list import WORKLOADS
from workloads import Workload

from stepscope.recorder import Recorder
from stepscope.store import open_group

ROUNDS = 3
BAR = 1.03
CHOSEN = ("MLP 4x256, batch 32", "demo, 1 iteration", "demo, 20 iterations", "LSTM 2x128, 32 x 64 characters")
HEAD = ("run", "steps", "plain s", "recorded", "processor time", "bar", "by cost()", "health check alone")


def contenders(workload: Workload, folder: Path, steps: int, shares: list[float]) -> list[Contender]:
    plain = workload.make()

    def run_plain() -> None:
        for _ in range(steps):
            plain.step(NoProbe())

    return [
        Contender("plain", run_plain),
        Contender("ours", runs(workload, folder, steps, shares, {})),
        Contender("checked", runs(workload, folder, steps, [], {"schedule": {}, "health": True})),
    ]


def runs(
    workload: Workload, folder: Path, steps: int, shares: list[float], options: dict[str, object]
) -> Callable[[], None]:
    """Something that trains once, into a trial of its own, and appends what share of the time ``cost()`` says.

    With a schedule for no kind, nothing is recorded.
    """
    training = workload.make()

    def run() -> None:
        with Recorder(folder, trial="run", **options) as recorder:  # type: ignore[arg-type]
            recorder.watch(training.modules, training.optimizer)
            for _ in range(steps):
                with recorder.step() as step:
                    training.step(step)
            recorder.flush()
            shares.append(recorder.cost().share)

    return run


def steps_in(workload: Workload, seconds: float) -> int:
    """How many plain steps take about so long."""
    training = workload.make()
    training.step(NoProbe())
    started, number = time.perf_counter(), 0
    while time.perf_counter() - started < 1:
        training.step(NoProbe())
        number += 1
    return max(101, round(number * seconds / 100) * 100)


def measure(workload: Workload, seconds: float) -> list[str]:
    """A row of the table."""
    steps = steps_in(workload, seconds)
    shares: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        found = interleave(contenders(workload, Path(folder), steps, shares), ROUNDS, warm_up=0)
        recorded = max(len(open_group(folder)[name].steps) for name in open_group(folder).names)
    cost, health = (f"{ratio(found, name, 'plain', 'process'):.3f}x" for name in ("ours", "checked"))
    share = f"{1 + statistics.median(shares):.3f}x"
    plain = f"{found['plain'].median():.1f}"
    return [workload.name, f"{steps:,}", plain, str(recorded), cost, f"{BAR:.2f}x", share, health]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(CHOSEN), help="words that the workload's name contains")
    parser.add_argument("--seconds", type=float, default=15.0, help="about how long a plain run takes")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = []
    for workload in WORKLOADS:
        if any(word in workload.name for word in options.only):
            rows.append(measure(workload, options.seconds))
            print(" ".join(rows[-1]), file=sys.stderr, flush=True)
    print(f"{describe()}\n\n{markdown(HEAD, rows)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
