"""What a whole run costs at the default schedule over the plain run; and, apart, what the health check costs.

    python benchmarks/bench_runs.py
    python benchmarks/bench_runs.py --only MLP --seconds 30

One training goes on in blocks of some steps: plain, recorded, and looked at by the health check, in turns and in
another order each round, since the speed of a shared machine changes by more, within seconds, than what is measured.
A block ends when what it recorded is on disk: the first recorded steps, which are the dearest, and what the writer's
thread takes from the training are in it. The ratios are those of the sums over all blocks.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from machine import describe
from ours import NoProbe
from table import markdown
from workload_list import WORKLOADS
from workloads import Training, Workload

from stepscope.recorder import Recorder

BLOCK = 0.25
"""About how many seconds a block takes."""
LEAST = 100
"""Steps of a block: the recorder counts what a recording costs the steps after it, which must not be other blocks'."""
BAR = 1.03
CHOSEN = ("MLP 4x256, batch 32", "demo, 1 iteration", "demo, 20 iterations", "LSTM 2x128, 32 x 64 characters")
HEAD = ("run", "steps", "plain s", "recorded", "processor time", "bar", "by cost()", "health check alone")


def train_plainly(training: Training, steps: int) -> None:
    for _ in range(steps):
        training.step(NoProbe())


def train_with(recorder: Recorder, training: Training, steps: int) -> None:
    before = recorder.cost().recorded
    for _ in range(steps):
        with recorder.step() as step:
            training.step(step)
    if recorder.cost().recorded > before:  # to wait for nothing costs a block of short steps some percent, too
        recorder.flush()


def interleaved(contenders: Mapping[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Seconds of processor time, of all threads, of each contender."""
    taken = dict.fromkeys(contenders, 0.0)
    order = list(contenders)
    for _ in range(rounds):
        random.shuffle(order)
        for name in order:
            started = time.process_time()
            contenders[name]()
            taken[name] += time.process_time() - started
    return taken


def steps_in(training: Training, seconds: float) -> int:
    """How many plain steps take about so long."""
    train_plainly(training, 2)
    started, number = time.perf_counter(), 0
    while time.perf_counter() - started < 1:
        training.step(NoProbe())
        number += 1
    return max(1, round(number * seconds))


def measure(workload: Workload, seconds: float) -> list[str]:
    """A row of the table."""
    training = workload.make()
    steps = max(LEAST, steps_in(training, BLOCK))
    rounds = max(3, round(steps_in(training, seconds) / steps))
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        recording = stack.enter_context(Recorder(folder, trial="recorded"))
        checking = stack.enter_context(Recorder(folder, trial="checked", schedule={}, health=True))
        for recorder in (recording, checking):
            recorder.watch(training.modules, training.optimizer)
        taken = interleaved(
            {
                "plain": lambda: train_plainly(training, steps),
                "recorded": lambda: train_with(recording, training, steps),
                "checked": lambda: train_with(checking, training, steps),
            },
            rounds,
        )
        cost = recording.cost()
    ratios = [f"{taken[name] / taken['plain']:.3f}x" for name in ("recorded", "checked")]
    share = f"{1 + (cost.seconds + cost.writing) / taken['plain']:.3f}x"
    head = [workload.name, f"{steps * rounds:,}", f"{taken['plain']:.1f}", str(cost.recorded)]
    return [*head, ratios[0], f"{BAR:.2f}x", share, ratios[1]]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(CHOSEN), help="words that the workload's name contains")
    parser.add_argument("--seconds", type=float, default=30.0, help="about how long a plain run takes")
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
