"""The demo: a recurrent net that cannot learn to add, and its fix, recorded as two trials.

The task is the running sum of Comgra's paper (Dietz et al. 2024, arXiv 2407.21656): the net reads a sequence of
tuples of five numbers, one tuple an iteration, and answers with the sum of each of the five positions. It trains on
sequences of 1 to 10 tuples and is tested on 15 and 20.

    python examples/find_the_bug.py --out runs/demo      (or: stepscope demo)

Somewhere in this file is a bug. The trial ``bugged`` has it, the trial ``fixed`` has not; the README finds it in the
dashboard.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.arguments import parse
from stepscope.examples.progress import progress
from stepscope.recorder import Backoff, Every, Recorder, Schedule, Step

NUMBERS = 5
HIDDEN = 200
MEMORY = 50
BATCH = 128
TRAIN_LENGTHS = range(1, 11)
TEST_LENGTHS = (15, 20)
TEST_EVERY = 100
STEPS = 1500
LEARNING_RATE = 5e-4
NOTES = {
    "bugged": "The loss falls to about 1 and stays there, whatever the learning rate. Which tensor cannot be what it "
    "has to be?",
    "fixed": "The same net, data and seed as in 'bugged', without the bug: the loss falls to about 0.01.",
}


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
    """The net's answer ``(batch, 5)`` after the last tuple."""
    memory = torch.zeros(BATCH, MEMORY)
    step.record("memory", memory, role="initial")
    answers: list[torch.Tensor] = []
    for numbers in sequence:
        with step.iteration():
            step.record("input", numbers, type="input")
            answer, memory = model(numbers, memory)
            step.record("memory", memory, role="new")
            answers.append(answer)
    return answers[-1]


def loss_of(answer: torch.Tensor, target: torch.Tensor, step: Step) -> torch.Tensor:
    """The mean squared error, recorded with what it compares."""
    step.record("answer", answer)
    step.record("target", target, type="target")
    loss = F.mse_loss(answer, target)
    step.record("loss", loss, type="loss")
    return loss


def train(recorder: Recorder, *, activate_last: bool, steps: int, seed: int) -> float:
    """Train one version; returns the last test loss."""
    torch.manual_seed(seed)
    data = torch.Generator().manual_seed(seed)
    model = RunningSum(activate_last=activate_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    recorder.watch(dict(model.named_children()), optimizer)
    test_loss = float("nan")
    for number in progress(steps, f"{recorder.name:8}"):
        length = TRAIN_LENGTHS[int(torch.randint(len(TRAIN_LENGTHS), (), generator=data))]
        sequence, target = make_batch(length, data)
        with recorder.step(kind=f"length {length}") as step:
            loss = loss_of(predict(model, sequence, step), target, step)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        recorder.scalar("train", loss, group="loss")
        if number % TEST_EVERY == TEST_EVERY - 1 or number == steps - 1:
            test_loss = test(model, recorder, seed)
    return test_loss


@torch.no_grad()
def test(model: RunningSum, recorder: Recorder, seed: int) -> float:
    """The loss on sequences longer than those of the training, as the mean over the lengths."""
    data = torch.Generator().manual_seed(seed + 1)
    losses = []
    for length in TEST_LENGTHS:
        sequence, target = make_batch(length, data)
        with recorder.step(kind=f"test length {length}") as step:
            loss = loss_of(predict(model, sequence, step), target, step)
        recorder.scalar(f"test length {length}", loss, group="loss")
        losses.append(float(loss))
    return sum(losses) / len(losses)


def run(out: Path, steps: int = STEPS, *, seed: int = 0) -> dict[str, float]:
    """Record both versions into the group ``out``; returns the last test loss of each."""
    # Tests are rare: each of them is recorded.
    schedule: dict[str, Schedule] = {f"test length {length}": Every(1) for length in TEST_LENGTHS}
    losses = {}
    for trial, note in NOTES.items():
        activate_last = trial == "bugged"
        config = {"activate_last": activate_last, "steps": steps, "lr": LEARNING_RATE, "batch": BATCH, "seed": seed}
        by_kind = {**schedule, "*": Backoff(10, factor=1.2)}
        with Recorder(out, trial=trial, schedule=by_kind, config=config, if_exists="overwrite") as recorder:
            recorder.note(note)
            losses[trial] = train(recorder, activate_last=activate_last, steps=steps, seed=seed)
    return losses


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments, "Train the demo's two trials and record them.", out="runs/demo", steps=STEPS)
    for trial, loss in run(options.out, options.steps).items():
        print(f"{trial:8} loss on longer sequences: {loss:.3g}", file=sys.stderr)
    print(f"Recorded both trials. Look at them with: stepscope view {options.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
