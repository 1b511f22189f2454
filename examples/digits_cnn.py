"""A small convolutional net that reads handwritten digits, recorded with two lines.

    python examples/digits_cnn.py --out runs/digits

The two lines are ``recorder.watch(...)`` and ``with recorder.step(...)``: the outputs of all modules, the parameters,
their gradients and updates, the input, the target and the loss are found without being named.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples import digits
from stepscope.examples.arguments import parse
from stepscope.examples.progress import progress
from stepscope.recorder import Every, Recorder

STEPS = 600
TEST_EVERY = 100
LEARNING_RATE = 0.05
SCHEDULE = {"train": Every(20), "test": Every(1)}


class ConvBlock(nn.Module):
    """Convolution, batch norm, ReLU in place, pooling: half as high, half as wide."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.conv(x))
        x = self.pool(self.relu(x))
        return x


class DigitsCNN(nn.Module):
    """Two blocks and a linear layer: images ``(batch, 1, 8, 8)`` to logits ``(batch, 10)``."""

    def __init__(self) -> None:
        super().__init__()
        self.first = ConvBlock(1, 16)
        self.second = ConvBlock(16, 32)
        self.classify = nn.Linear(32 * 2 * 2, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.first(x))
        x = self.classify(x.flatten(1))
        return x


def train(recorder: Recorder, steps: int, *, seed: int) -> float:
    """Train for some steps; returns the accuracy on the test images."""
    torch.manual_seed(seed)
    train_set, test_set = digits.load(seed)
    model = DigitsCNN()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9)
    recorder.watch(model, optimizer)
    accuracy = 0.0
    for number in progress(steps, "digits"):
        chosen = torch.randint(len(train_set.labels), (digits.BATCH,))
        images, labels = train_set.images[chosen], train_set.labels[chosen]
        with recorder.step("train"):
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        recorder.scalar("train", loss, group="loss")
        if number % TEST_EVERY == TEST_EVERY - 1 or number == steps - 1:
            accuracy = test(model, test_set, recorder)
    return accuracy


@torch.no_grad()
def test(model: DigitsCNN, test_set: digits.Digits, recorder: Recorder) -> float:
    """The share of the test images that the net reads right."""
    model.eval()
    with recorder.step("test") as step:
        logits = model(test_set.images)
        loss = F.cross_entropy(logits, test_set.labels)
        step.record("loss", loss, type="loss")  # without backward, nothing else tells that it is one
    model.train()
    accuracy = float((logits.argmax(1) == test_set.labels).float().mean())
    recorder.scalar("test", loss, group="loss")
    recorder.scalar("accuracy", accuracy)
    return accuracy


def run(out: Path, steps: int = STEPS, *, seed: int = 0) -> float:
    """Record the trial ``cnn`` into the group ``out``; returns the accuracy on the test images."""
    config = {"steps": steps, "lr": LEARNING_RATE, "momentum": 0.9, "batch": digits.BATCH, "seed": seed}
    with Recorder(out, trial="cnn", schedule=SCHEDULE, config=config, if_exists="overwrite") as recorder:
        return train(recorder, steps, seed=seed)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments, "Train a small CNN on handwritten digits.", out="runs/digits", steps=STEPS)
    accuracy = run(options.out, options.steps)
    print(f"accuracy on {digits.TEST_IMAGES} test images: {accuracy:.1%}", file=sys.stderr)
    print(f"Recorded the trial. Look at it with: stepscope view {options.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
