"""The demo: a recurrent net that cannot learn to add, and its fix, recorded as two trials.

The task is the running sum of Comgra's paper (Dietz et al. 2024, arXiv 2407.21656): the net reads a sequence of
tuples of five numbers, one tuple an iteration, and answers with the sum of each of the five positions. It trains on
sequences of 1 to 10 tuples and is tested on 15 and 20.

    python examples/find_the_bug.py --out runs/demo --steps 600      (or: stepscope demo)

Somewhere in this file is a bug. The trial ``bugged`` has it, the trial ``fixed`` has not; the README finds it in the
dashboard.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Backoff, Every, Recorder, Schedule
from stepscope.recorder.step import Step

NUMBERS = 5
HIDDEN = 200
MEMORY = 50
BATCH = 128
TRAIN_LENGTHS = range(1, 11)
TEST_LENGTHS = (15, 20)
STEPS = 1000
TEST_EVERY = 100
LEARNING_RATE = 1e-3


class Subnet(nn.Module):
    """Two layers with a leaky ReLU between them."""

    def __init__(self, inputs: int, outputs: int, *, activate_last: bool) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, HIDDEN)
        self.hidden_state = nn.LeakyReLU()
        self.last = nn.Linear(HIDDEN, outputs)
        self.activate_last = activate_last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.last(self.hidden_state(self.first(x)))
        if self.activate_last:
            x = F.leaky_relu(x)
        return x


class RunningSum(nn.Module):
    """Reads a tuple, updates its memory, and says the sum so far."""

    def __init__(self, *, activate_last: bool) -> None:
        super().__init__()
        self.subnet_pre = Subnet(NUMBERS, MEMORY, activate_last=activate_last)
        self.subnet_mem = Subnet(2 * MEMORY, MEMORY, activate_last=activate_last)
        self.subnet_out = Subnet(MEMORY, NUMBERS, activate_last=activate_last)

    def forward(self, x: torch.Tensor, memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen = self.subnet_pre(x)
        memory = memory + self.subnet_mem(torch.cat([seen, memory], dim=1))
        return self.subnet_out(memory), memory


def make_batch(length: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences ``(length, batch, 5)`` of numbers between -1 and 1, and their sums ``(batch, 5)``."""
    sequence = torch.rand(length, BATCH, NUMBERS, generator=generator) * 2 - 1
    return sequence, sequence.sum(0)


def predict(model: RunningSum, sequence: torch.Tensor, step: Step) -> torch.Tensor:
    """The net's answer after the last tuple."""
    memory = torch.zeros(BATCH, MEMORY)
    step.record("memory", memory, role="initial")
    answer = memory
    for numbers in sequence:
        with step.iteration():
            step.record("input", numbers, type="input")
            answer, memory = model(numbers, memory)
            step.record("memory", memory, role="new")
    step.record("answer", answer)
    return answer


def train(recorder: Recorder, *, activate_last: bool, steps: int, seed: int) -> float:
    """Train one version; returns the last test loss."""
    torch.manual_seed(seed)
    data = torch.Generator().manual_seed(seed)
    model = RunningSum(activate_last=activate_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    parts = {"subnet_pre": model.subnet_pre, "subnet_mem": model.subnet_mem, "subnet_out": model.subnet_out}
    recorder.watch(parts, optimizer)
    test_loss = float("nan")
    for number in progress(steps, recorder.name):
        length = TRAIN_LENGTHS[int(torch.randint(len(TRAIN_LENGTHS), (), generator=data))]
        sequence, target = make_batch(length, data)
        with recorder.step(kind=f"length {length}") as step:
            answer = predict(model, sequence, step)
            step.record("target", target, type="target")
            loss = F.mse_loss(answer, target)
            step.record("loss", loss, type="loss")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        recorder.scalar("train", loss, group="loss")
        if number % TEST_EVERY == TEST_EVERY - 1 or number == steps - 1:
            test_loss = test(model, recorder, data)
    return test_loss


def test(model: RunningSum, recorder: Recorder, data: torch.Generator) -> float:
    """The loss on sequences longer than those of the training, as the mean over the lengths."""
    losses = []
    for length in TEST_LENGTHS:
        sequence, target = make_batch(length, data)
        with recorder.step(kind=f"test length {length}") as step, torch.no_grad():
            answer = predict(model, sequence, step)
            step.record("target", target, type="target")
            loss = F.mse_loss(answer, target)
            step.record("loss", loss, type="loss")
        recorder.scalar(f"test length {length}", loss, group="loss")
        losses.append(float(loss))
    return sum(losses) / len(losses)


def run(out: Path, steps: int = STEPS, *, seed: int = 0) -> None:
    """Record both versions into the group ``out``."""
    notes = {
        "bugged": "The loss falls a little and then stays. Which tensor cannot be what it has to be?",
        "fixed": "The same net without the bug.",
    }
    for trial, note in notes.items():
        activate_last = trial == "bugged"
        config = {"activate_last": activate_last, "steps": steps, "lr": LEARNING_RATE, "batch": BATCH, "seed": seed}
        schedule: dict[str, Schedule] = {"*": Backoff(10, factor=1.2)}
        schedule |= {f"test length {length}": Every(1) for length in TEST_LENGTHS}
        with Recorder(out, trial=trial, schedule=schedule, config=config, if_exists="overwrite") as recorder:
            recorder.note(note)
            loss = train(recorder, activate_last=activate_last, steps=steps, seed=seed)
            sys.stderr.write(f"  test loss {loss:.4g}\n")
    sys.stderr.write(f"recorded both trials; look at them with: stepscope view {out}\n")


@contextmanager
def _line() -> Iterator[None]:
    yield
    sys.stderr.write("\n")


def progress(steps: int, label: str) -> Iterator[int]:
    """Count the steps and draw a line of progress."""
    started = time.perf_counter()
    live = sys.stderr.isatty()
    with _line():
        for number in range(steps):
            yield number
            done = number + 1
            if done == steps or (live and done % 10 == 0):
                bar = "#" * (20 * done // steps)
                seconds = time.perf_counter() - started
                start = "\r" if live else ""
                sys.stderr.write(f"{start}{label:8} [{bar:20}] step {done}/{steps}, {seconds:.0f} s")
                sys.stderr.flush()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Train the demo's two trials and record them.")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="the group's folder (default: runs/demo)")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"training steps a trial (default: {STEPS})")
    options = parser.parse_args(arguments)
    run(options.out, options.steps)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
