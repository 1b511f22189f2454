"""What recording costs: each step over the plain one, on the same work, in interleaved runs of one process.

    python benchmarks/bench_recording.py                     # all workloads
    python benchmarks/bench_recording.py --only demo MLP     # those whose name contains a word
    python benchmarks/bench_recording.py --quick             # a quarter of the rounds, no memory

Runs on one torch thread. "recorded" is a recorded step over the plain one in processor time of the training thread,
which others on the machine disturb least; "by the clock" is the same in wall time; "all threads" is the processor time
of the training and the writer's thread together, until the step is on disk. With --check it exits with 1 if
a bar is not held.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import memory
import torch
from contenders import CONTENDERS
from machine import describe
from table import kibibytes, markdown, mebibytes, times
from timing import interleave, ratio
from workload_list import WORKLOADS
from workloads import Workload

OURS = ("plain", "unrecorded", "recorded")
HEAD = (
    "workload",
    "plain ms",
    "unrecorded",
    "recorded",
    "bar",
    "by the clock",
    "all threads",
    "KiB a step",
    "peak MiB",
    "plain",
)


def measure(workload: Workload, rounds: int, *, with_memory: bool) -> tuple[list[str], list[str]]:
    """A row of the table, and the bars that were not held."""
    with tempfile.TemporaryDirectory() as folder:
        contenders = [CONTENDERS[name](workload, Path(folder)) for name in OURS]
        found = interleave(contenders, rounds)
        steps = rounds + 3
        size = contenders[-1].bytes_on_disk() / steps
        for contender in contenders:
            contender.close()
    cost = ratio(found, "recorded", "plain", "thread")
    idle = ratio(found, "unrecorded", "plain", "thread")
    peaks = [memory.peak_memory(__file__, workload.name, name) if with_memory else None for name in OURS]
    row = [
        workload.name,
        f"{1000 * found['plain'].median('thread'):.2f}",
        f"{idle:.3f}x",
        times(cost),
        "" if workload.bar is None else times(workload.bar),
        times(ratio(found, "recorded", "plain")),
        times(ratio(found, "recorded", "plain", "process")),
        kibibytes(size),
        mebibytes(peaks[2]),
        mebibytes(peaks[0]),
    ]
    missed = [] if workload.bar is None or cost <= workload.bar else [f"{workload.name}: recorded {cost:.2f}x"]
    return row, missed


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="words that the workload's name contains")
    parser.add_argument("--quick", action="store_true", help="a quarter of the rounds")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a bar is not held")
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.memory:
        workload, contender = options.memory
        memory.answer(workload, CONTENDERS[contender])
        return 0
    chosen = [workload for workload in WORKLOADS if any(word in workload.name for word in options.only)]
    rows, missed = [], []
    for workload in chosen:
        rounds = max(3, workload.rounds // 4) if options.quick else workload.rounds
        row, too_slow = measure(workload, rounds, with_memory=not options.quick)
        print(" ".join(row), file=sys.stderr, flush=True)
        rows.append(row)
        missed += too_slow
    print(f"{describe()}\n\n{markdown(HEAD, rows)}")
    for line in missed:
        print(f"bar not held: {line}")
    return 1 if missed and options.check else 0


if __name__ == "__main__":
    raise SystemExit(main())
