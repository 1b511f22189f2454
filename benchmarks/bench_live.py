"""What live findings cost the training: the same recorded run with and without a ``LiveDoctor`` beside it.

    python benchmarks/bench_live.py

The doctor looks at the files from a process of its own, at the lowest priority. What the training process itself has
to do more is seen in its processor time; the wall clock also shows what the two share: cores, caches, the disk. On a
machine without an idle core the latter says more of the machine than of Stepscope.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from table import markdown
from torch import nn

from stepscope.integrations.live import LiveDoctor
from stepscope.recorder import Every, Recorder

ROUNDS = 5
STEPS = 300


class Seconds(NamedTuple):
    wall: float
    process: float


def train(folder: Path, *, live: bool) -> Seconds:
    """Train and record, from the first step to the last; starting and ending the doctor is not counted."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    recorder = Recorder(folder, trial="live" if live else "alone", schedule=Every(10), if_exists="number")
    doctor = LiveDoctor(recorder) if live else None
    recorder.watch(model, optimizer)
    wall, process = time.perf_counter(), time.process_time()
    for number in range(STEPS):
        x = torch.randn(256, 64, generator=torch.Generator().manual_seed(number))
        with recorder.step():
            loss = F.cross_entropy(model(x), x[:, :10].argmax(1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    spent = Seconds(time.perf_counter() - wall, time.process_time() - process)
    recorder.close()
    if doctor is not None:
        doctor.close(wait=60)
    return spent


def main() -> int:
    torch.set_num_threads(1)
    times: dict[bool, list[Seconds]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(ROUNDS + 1):
            for live in (False, True) if number % 2 else (True, False):
                spent = train(Path(folder), live=live)
                if number:
                    times[live].append(spent)
    rows = [(name, *_row(times, clock)) for name, clock in (("processor time", "process"), ("wall clock", "wall"))]
    print(f"{STEPS} steps, every tenth recorded; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    print(markdown(("of the training process", "alone", "with a LiveDoctor", "more"), rows))
    return 0


def _row(times: dict[bool, list[Seconds]], clock: str) -> tuple[str, str, str]:
    """Medians, and the median of the rounds' ratios."""
    alone, live = ([getattr(spent, clock) for spent in times[key]] for key in (False, True))
    more = statistics.median(two / one for one, two in zip(alone, live, strict=True)) - 1
    return f"{statistics.median(alone):.3f} s", f"{statistics.median(live):.3f} s", f"{more:+.1%}"


if __name__ == "__main__":
    sys.exit(main())
