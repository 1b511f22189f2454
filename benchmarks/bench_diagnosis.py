"""How long a diagnosis takes: processor time of all rules together, and of those that take most of it.

    python benchmarks/bench_diagnosis.py                          # 1,000 recorded steps of about 200 nodes: bar 2 s
    python benchmarks/bench_diagnosis.py --steps 200
    python benchmarks/bench_diagnosis.py --trial runs/demo/bugged # a recording of one's own

A small transformer learns to copy; every step is recorded. Each number is the least of three, each with a newly opened
trial. Exits with 1 if the bar is not held.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from machine import describe
from table import markdown
from torch import nn
from torch.nn import functional as F

from stepscope.analysis import RULES, diagnose
from stepscope.recorder import Every, Recorder
from stepscope.store import open_trial

BAR = 2.0
"""Seconds for 1,000 recorded steps of 200 nodes."""
_REPEATS = 3
_SHOWN = 10
_SYMBOLS, _LENGTH, _WIDTH, _BLOCKS = 32, 16, 32, 9


def record(folder: Path, steps: int) -> Path:
    """A recording of so many steps of some 200 nodes."""
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(_WIDTH, 4, 4 * _WIDTH, dropout=0.1, batch_first=True, norm_first=True)
    body = nn.TransformerEncoder(block, _BLOCKS, enable_nested_tensor=False)
    model = nn.Sequential(nn.Embedding(_SYMBOLS, _WIDTH), body, nn.Linear(_WIDTH, _SYMBOLS))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with Recorder(folder, trial="trial", schedule=Every(1)) as recorder:
        recorder.watch(model, optimizer)
        for _ in range(steps):
            text = torch.randint(_SYMBOLS, (8, _LENGTH))
            with recorder.step():
                loss = F.cross_entropy(model(text).transpose(1, 2), text.roll(1, 1))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return folder / "trial"


def seconds(path: Path, rules: list[str] | None = None) -> float:
    """Processor time of one diagnosis of a newly opened trial."""
    trial = open_trial(path)
    started = time.process_time()
    diagnose(trial, rules=rules)
    return time.process_time() - started


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000, help="how many steps are recorded (default: 1000)")
    parser.add_argument("--trial", type=Path, help="a recording to diagnose instead")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = options.trial or record(Path(folder), options.steps)
        return show(path)


def show(path: Path) -> int:
    """Print the tables; 1 if it took too long."""
    trial = open_trial(path)
    whole = min(seconds(path) for _ in range(_REPEATS))
    print(describe())
    print(f"\n{len(trial.steps):,} recorded steps of {len(trial.nodes)} nodes: {whole:.2f} s\n")
    single = Counter({name: min(seconds(path, [name]) for _ in range(_REPEATS)) for name in RULES})
    rows = [(name, f"{1000 * value:.0f}") for name, value in single.most_common(_SHOWN)]
    print(markdown(("rule, by itself", "ms"), rows))
    allowed = BAR * max(1.0, len(trial.steps) / 1000) * max(1.0, len(trial.nodes) / 200)
    return int(whole > allowed)


if __name__ == "__main__":
    sys.exit(main())
