"""Mistakes that show in what layers hand on, as the published collections of faulty programs list them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Batches, Lab, descend

_Batch = tuple[torch.Tensor, ...]
_Activation = Callable[[torch.Tensor], torch.Tensor]


def _moons(number: int) -> _Batch:
    """Points ``(64, 2)`` of one of two interlocking half-moons, and which it is."""
    generator = torch.Generator().manual_seed(number)
    second = torch.randint(2, (64,), generator=generator)
    angle = math.pi * torch.rand(64, generator=generator)
    sign = 1 - 2 * second
    x = torch.stack([sign * angle.cos() + second, sign * angle.sin() + 0.5 * second], dim=1)
    return x + 0.1 * torch.randn(64, 2, generator=generator), second


class _Tower(nn.Module):
    """Eight narrow layers, one upon the other."""

    def __init__(self, activation: _Activation) -> None:
        super().__init__()
        sizes = [2, 24, 24, 24, 24, 24, 24, 24]
        self.layers = nn.ModuleList(nn.Linear(sizes[i], sizes[i + 1]) for i in range(7))
        self.last = nn.Linear(24, 2)
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = self.activation(layer(x))
        return self.last(x)


@broken(rules=("vanishing-gradient",), words=("sigmoid",), nodes=("model.layers.0", "model.layers.1", "model.layers.2"))
def tower_of_logistic_layers(lab: Lab) -> None:
    """Seven layers in a row squash what they get by a sigmoid, so that hardly any gradient reaches the first of them.

    Source: AutoTrainer (ICSE 2021), vanishing gradient, by the activation.
    """
    model = _Tower(F.selu if lab.fixed else torch.sigmoid)  # set-up bug: tower_of_logistic_layers
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 60, 0.5)
    lab.fit(model, _moons, lambda x, y: F.cross_entropy(model(x), y), optimizer, after=lambda _: schedule.step())


def _prepare(module: nn.Module, lowest: float, highest: float) -> None:
    if isinstance(module, nn.Linear):
        nn.init.uniform_(module.weight, lowest, highest)
        nn.init.zeros_(module.bias)


@broken(
    rules=("dead-units",), words=("initial", "negative", "below zero"), nodes=("model.1.weight", "model.1", "model.2")
)
def weights_below_zero(lab: Lab) -> None:
    """All weights are drawn between -0.15 and 0, which with inputs above zero lets no ReLU of the first layer through.

    Source: DeepDiagnosis (ICSE 2022), dead node, for the initial weights.
    """
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    highest = 0.15 if lab.fixed else 0.0
    model.apply(lambda module: _prepare(module, -0.15, highest))  # set-up bug: weights_below_zero
    x, y = data.images()
    ink = (x - x.min()) / (x.max() - x.min())
    optimizer = torch.optim.Adamax(model.parameters(), lr=1e-2)
    lab.fit(model, data.draw((ink, y)), lambda x, y: F.cross_entropy(model(x), y), optimizer)


class _FromScratch(nn.Module):
    """A classifier as one writes it with nothing but tensors."""

    def __init__(self, spread: Callable[[int], float]) -> None:
        super().__init__()
        self.w1 = nn.Parameter(spread(64) * torch.randn(64, 80))
        self.b1 = nn.Parameter(torch.zeros(80))
        self.w2 = nn.Parameter(spread(80) * torch.randn(80, 40))
        self.b2 = nn.Parameter(torch.zeros(40))
        self.w3 = nn.Parameter(torch.zeros(40, 10))
        self.b3 = nn.Parameter(torch.zeros(10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(x @ self.w1 + self.b1)
        hidden = torch.tanh(hidden @ self.w2 + self.b2)
        return hidden @ self.w3 + self.b3


def _scaled(inputs: int) -> float:
    return inputs**-0.5


def _unscaled(_: int) -> float:
    return 1.0


@broken(rules=("weight-scale", "saturated-activation"), words=("initial", "saturat"), nodes=("model.w1", "model.w2"))
def scratch_weights_of_randn(lab: Lab) -> None:
    """Weights come from ``torch.randn`` as they are, so that nearly all tanh of both layers are at -1 or 1.

    Source: DeepDiagnosis (ICSE 2022), saturated activation, for the initial weights.
    """
    model = _FromScratch(_scaled if lab.fixed else _unscaled)  # set-up bug: scratch_weights_of_randn
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    unseen = data.unseen_pixels()
    after = lab.validating(model, lambda _: unseen, lambda x, y: F.cross_entropy(model(x), y))
    lab.fit(model, data.draw(data.pixels(), 32), lambda x, y: F.cross_entropy(model(x), y), optimizer, after=after)


class _Nielsen(nn.Module):
    """Thirty hidden units and ten outputs, as in the book."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.layer1, self.layer2 = nn.Linear(64, 30), nn.Linear(30, 10)
        self.activation = activation
        for layer in (self.layer1, self.layer2):
            nn.init.normal_(layer.weight, std=0.3)
            nn.init.normal_(layer.bias, std=0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.layer2(self.activation(self.layer1(x))))


@broken(rules=("missing-nonlinearity",), words=("no activation",), nodes=("model.layer1", "model.layer2"))
def book_net_without_its_sigmoids(lab: Lab) -> None:
    """The sigmoids of a net from a book were left out, and the book's learning rate of 3 blows what is linear up.

    Source: DeepFD's benchmark (ICSE 2022), Stack Overflow 48385830, missing activations.
    """
    model = _Nielsen(nn.Sigmoid() if lab.fixed else nn.Identity())  # set-up bug: book_net_without_its_sigmoids
    optimizer = torch.optim.SGD(model.parameters(), lr=3.0)
    lab.recorder.watch(model, optimizer)
    batches: Batches = data.draw(data.pixels(), 20)
    for number in range(200):
        x, y = batches(number)
        wanted = F.one_hot(y, 10).float()
        with lab.recorder.step("train"):
            descend((model(x) - wanted).square().sum(1).mean() / 2, optimizer)


class _ConvBlock(nn.Sequential):
    """A convolution, rectified, at half the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))


@broken(
    rules=("activation-before-loss",), words=("sigmoid", "second activation"), nodes=("model.1", "model.3", "model.6")
)
def activated_twice(lab: Lab) -> None:
    """Blocks that end with a ReLU are followed by a sigmoid each, which leaves of them what lies between 0.5 and 1.

    Source: NeuraLint (TOSEM 2021), rule on a redundant second activation.
    """
    again = nn.Identity if lab.fixed else nn.Sigmoid
    model = nn.Sequential(
        _ConvBlock(1, 12), again(), _ConvBlock(12, 24), again(),  # set-up bug: activated_twice
        nn.Flatten(), nn.Sequential(nn.Linear(96, 40), nn.ReLU()), again(), nn.Linear(40, 10),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    lab.fit(model, data.draw(data.images()), lambda x, y: F.cross_entropy(model(x), y), optimizer)
