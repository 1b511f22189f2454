"""Mistakes in nets for pictures, drawn by dice from published collections of training bugs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _unseen(_: int) -> _Batch:
    x, y = data.unseen_pixels()
    return x.view(-1, 1, 8, 8), y


class _Classifier(nn.Module):
    """Two convolutions and two dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.fc1 = nn.Linear(32 * 16, 64)
        self.fc2 = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        return self.fc2(F.relu(self.fc1(F.max_pool2d(x, 2).flatten(1))))


@broken(rules=("overfitting",), words=("overfit", "by heart", "too few samples"), nodes=("model", "loss", "input.x"))
def sixty_digits_left_from_a_trial(lab: Lab) -> None:
    """A convolutional net learns from the first 64 digits alone, which it soon knows by heart, and overfits.

    Source: SageMaker Debugger, rule Overfit.
    """
    x, y = data.images()
    rows = len(x) if lab.fixed else 64  # set-up bug: sixty_digits_left_from_a_trial
    loader = DataLoader(TensorDataset(x[:rows], y[:rows]), batch_size=32, shuffle=True)
    model = _Classifier()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, weight_decay=1e-4)
    lab.recorder.watch(model, optimizer)
    criterion = nn.CrossEntropyLoss()
    number, stop = 0, 160
    while number < stop:
        for images, labels in loader:
            with lab.recorder.step("train"):
                descend(criterion(model(images), labels), optimizer)
            lab.validate(_unseen, lambda x, y: criterion(model(x), y), number)
            number += 1
            if number == stop:
                break


class _Swish(torch.autograd.Function):
    """The input times its sigmoid, which keeps only the input for the way back."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, whole: bool) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.whole = whole
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        (x,) = ctx.saved_tensors
        gate = x.sigmoid()
        slope = x * gate * (1 - gate)
        if ctx.whole:
            slope = slope + gate  # bug: half_of_the_product_rule
        return grads[0] * slope, None


class _Lean(nn.Module):
    """Convolutions with an activation that saves memory."""

    def __init__(self, *, whole: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 12, 3, padding=1)
        self.conv2 = nn.Conv2d(12, 24, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(24, 24, 3, padding=1)
        self.head = nn.Linear(24 * 16, 10)
        self.whole = whole

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv in (self.conv1, self.conv2, self.conv3):
            x = _Swish.apply(conv(x), self.whole)  # type: ignore[no-untyped-call]
        return self.head(x.flatten(1))


@broken(words=("derivative", "custom function"), nodes=("model.conv1", "model.conv2", "model.conv3", "model"))
def half_of_the_product_rule(lab: Lab) -> None:
    """The hand-written backward of an activation forgets a term of the product rule, so that gradients are wrong.

    Source: Goodfellow et al., Deep Learning, 11.5, compare back-propagated derivatives to numerical derivatives.
    """
    model = _Lean(whole=lab.fixed)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), y)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9)
    after = lab.validating(model, _unseen, loss_of)
    lab.fit(model, data.draw(data.images(), 32), loss_of, optimizer, after=after)


def _sounds(number: int) -> _Batch:
    """Spectrograms ``(32, 1, 16, 16)`` in decibels, at most 0, and whether a tone rises, falls, stays or is a click."""
    generator = torch.Generator().manual_seed(number)
    kind = torch.randint(4, (32,), generator=generator)
    start = 3 + 10 * torch.rand(32, 1, 1, generator=generator)
    when, pitch = torch.arange(16.0)[None, None, :], torch.arange(16.0)[None, :, None]
    slope = torch.tensor([0.6, -0.6, 0.0, 0.0])[kind][:, None, None]
    far = pitch - start - slope * (when - 8)
    far = torch.where(kind[:, None, None] == 3, (when - start).expand(-1, 16, -1), far)
    power = 10 ** (torch.rand(32, 1, 1, generator=generator) - 1) * (-(far**2)).exp()
    noise = 1e-3 * torch.rand(32, 16, 16, generator=generator) ** 2
    return (10 * (power + noise).clamp(1e-6, 1).log10())[:, None], kind


class _Stage(nn.Module):
    """A residual block whose activation goes before its convolutions and its shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(x)
        return self.shortcut(x) + self.conv2(F.relu(self.conv1(x)))


class _Listener(nn.Module):
    """Three blocks and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.Sequential(_Stage(1, 12, 1), _Stage(12, 16, 2), _Stage(16, 24, 2))
        self.head = nn.Linear(24 * 16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.stages(x)).flatten(1))


@broken(
    rules=("dead-units",), words=("negative", "below zero"), nodes=("model.stages.0", "model.stages.0.conv1", "input.x")
)
def decibels_below_zero(lab: Lab) -> None:
    """Spectrograms are divided by 60 only and stay below zero, so that the first ReLU of the net turns all to zeros.

    Source: DeepDiagnosis, dead node: negative input with ReLU everywhere.
    """
    model = _Listener()
    offset = 1.0 if lab.fixed else 0.0  # set-up bug: decibels_below_zero

    def batches(number: int) -> _Batch:
        decibels, kind = _sounds(number)
        return decibels / 60 + offset, kind

    def loss_of(x: torch.Tensor, kind: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), kind)

    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    after = lab.validating(model, lambda number: batches(9000 + number), loss_of)
    lab.fit(model, batches, loss_of, optimizer, after=after)


class _Autoencoder(nn.Module):
    """Strided convolutions down, transposed ones up."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, 16, 3, 2, 1), nn.ReLU(), nn.Flatten(),
            nn.Linear(64, 16),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Linear(16, 64), nn.ReLU(), nn.Unflatten(1, (16, 2, 2)), nn.ConvTranspose2d(16, 12, 4, 2, 1), nn.ReLU(),
            nn.ConvTranspose2d(12, 1, 4, 2, 1),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.encoder(x))


def _scans() -> torch.Tensor:
    """Scanned digits ``(n, 1, 8, 8)``; where the scanner failed, a pixel is not a number."""
    x = data.images()[0].clone()
    x[[411, 1203], 0, [3, 6], [2, 5]] = torch.nan
    return x


@broken(rules=("non-finite",), words=("nan", "not a number", "not finite"), nodes=("input.x", "input"), onset=19)
def scans_with_missing_pixels(lab: Lab) -> None:
    """Two of the pictures have a pixel that is NaN, and the first batch with one of them spoils every weight.

    Source: UMLAUT, NaN in the input.
    """
    scans = _scans()
    if lab.fixed:
        scans = scans.nan_to_num(0.0)  # set-up bug: scans_with_missing_pixels
    model = _Autoencoder()
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(x), x)

    after = lab.validating(model, _unseen, loss_of)
    lab.fit(model, data.draw((scans, data.images()[1]), 32), loss_of, optimizer, after=after)
