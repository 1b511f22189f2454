"""Mistakes in nets and their first weights, which lecture notes and a textbook warn of."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import change

_Batch = tuple[torch.Tensor, ...]


def _sigmoids(*sizes: int) -> nn.Sequential:
    """Linear layers, each but the last followed by a sigmoid."""
    model = nn.Sequential()
    for place, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
        model.add_module(f"fc{place}", nn.Linear(inputs, outputs))
        if place < len(sizes) - 1:
            model.add_module(f"squash{place}", nn.Sigmoid())
    return model


@broken(
    rules=("weight-scale",), words=("initial weights", "initialised too"),
    nodes=("model.fc1", "model.fc2", "model.fc3", "model.squash1", "model.squash2", "model.squash3",
           "model.fc1.weight", "model.fc2.weight", "model.fc3.weight"),
)  # fmt: skip
def sigmoids_behind_large_first_weights(lab: Lab) -> None:
    """The weights before three layers of sigmoids are drawn with a deviation of 4, which leaves all of them saturated.

    Source: CS231n, Neural Networks Part 1, Sigmoid: too large initial weights saturate most neurons.
    """
    x, y = data.pixels()
    model = _sigmoids(64, 32, 16, 16, 10)

    def first(layer: nn.Linear) -> None:
        scaled = lab.fixed or layer.out_features == 10
        deviation = (2 / sum(layer.weight.shape)) ** 0.5 if scaled else 4.0
        layer.weight.normal_(0, deviation)  # set-up bug: sigmoids_behind_large_first_weights
        layer.bias.zero_()

    change(model, first)
    criterion = nn.CrossEntropyLoss()
    after = lab.validating(model, lambda _: data.unseen_pixels(), lambda x, y: criterion(model(x), y))
    lab.fit(model, data.draw((x, y)), lambda x, y: criterion(model(x), y), lr=2e-2, after=after)


class _DigitNet(nn.Module):
    """Two convolutions, pooling, and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 12, 3, padding=1), nn.Conv2d(12, 24, 3, padding=1)
        self.fc1, self.fc2 = nn.Linear(24 * 4, 48), nn.Linear(48, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


@broken(
    rules=("learning-rate",), words=("learning rate",),
    nodes=("model", "model.conv1", "model.conv2", "model.fc1", "model.conv1.weight", "model.conv2.weight",
           "model.fc1.weight", "model.fc1.bias"),
)  # fmt: skip
def digits_whose_relus_are_knocked_out(lab: Lab) -> None:
    """A learning rate of 1 with momentum throws the weights of a convolutional net to where no ReLU is ever active.

    Source: CS231n, Neural Networks Part 1, ReLU: units die if the learning rate is set too high.
    """
    model = _DigitNet()
    rate = 0.03 if lab.fixed else 1.0  # set-up bug: digits_whose_relus_are_knocked_out
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, nesterov=True)
    lab.recorder.watch(model, optimizer)
    pixels, labels = data.unseen_pixels()
    unseen = pixels.view(-1, 1, 8, 8), labels
    after = lab.validating(model, lambda _: unseen, lambda x, y: F.cross_entropy(model(x), y))
    loader = DataLoader(TensorDataset(*data.images()), batch_size=48, shuffle=True, drop_last=True)
    for epoch in range(5):
        for place, (images, digits) in enumerate(loader):
            with lab.recorder.step("train"):
                descend(F.cross_entropy(model(images), digits), optimizer)
            after(epoch * len(loader) + place)


def _hums(number: int) -> _Batch:
    """Sounds of three tones ``(32, 1, 32)``, of mean 0 and deviation 1 each, with noise, and without it."""
    generator = torch.Generator().manual_seed(number)
    pitch = 0.1 + 0.5 * torch.rand(32, 3, 1, generator=generator)
    phase = 6.28 * torch.rand(32, 3, 1, generator=generator)
    clean = (pitch * torch.arange(32.0) + phase).sin().sum(1, keepdim=True)
    clean = (clean - clean.mean(2, keepdim=True)) / clean.std(2, keepdim=True)
    return clean + 0.5 * torch.randn(clean.shape, generator=generator), clean


def _layer(inputs: int, outputs: int, *, active: bool = True) -> nn.Sequential:
    """A convolution over time and, if wanted, a ReLU."""
    layers: Iterable[nn.Module] = [nn.Conv1d(inputs, outputs, 5, padding=2), *([nn.ReLU()] if active else [])]
    return nn.Sequential(*layers)


@broken(
    rules=("unreachable-targets",),
    words=("negative", "rectif", "last activation"),
    nodes=("model.3", "model.3.1", "model"),
)
def sound_behind_a_last_relu(lab: Lab) -> None:
    """The last layer of a denoiser is made like the others, with a ReLU, and cannot say the negative half of a sound.

    Source: CS231n, Neural Networks Part 1, output layer: unlike other layers it most commonly has no activation.
    """
    last = _layer(24, 1, active=not lab.fixed)  # set-up bug: sound_behind_a_last_relu
    model = nn.Sequential(_layer(1, 24), _layer(24, 24), _layer(24, 24), last)
    criterion = nn.SmoothL1Loss()

    def loss_of(noisy: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        return criterion(model(noisy), clean)

    after = lab.validating(model, lambda number: _hums(9000 + number), loss_of)
    lab.fit(model, _hums, loss_of, torch.optim.RAdam(model.parameters(), lr=5e-3), after=after)


def _spirals(number: int) -> _Batch:
    """Points ``(128, 2)`` on three arms of a spiral, and the arm."""
    generator = torch.Generator().manual_seed(number)
    arm = torch.randint(3, (128,), generator=generator)
    radius = 0.1 + 0.9 * torch.rand(128, generator=generator)
    angle = 4 * radius + 2.094 * arm + 0.15 * torch.randn(128, generator=generator)
    return 1.8 * torch.stack([radius * angle.sin(), radius * angle.cos()], dim=1), arm


@broken(
    rules=("single-unit",),
    words=("capacity", "too few", "hidden units", "narrow"),
    nodes=("model", "model.inner", "model.outer", "model.inner.weight"),
)
def spirals_for_three_neurons(lab: Lab) -> None:
    """For fear of overfitting the hidden layer has three neurons, with which three spiral arms cannot be parted.

    Source: CS231n, Neural Networks Part 1, setting sizes: small networks represent too little.
    """
    width = 100 if lab.fixed else 3
    model = nn.Sequential()
    model.add_module("inner", nn.Linear(2, width))
    model.add_module("relu", nn.LeakyReLU())
    model.add_module("outer", nn.Linear(width, 3))  # set-up bug: spirals_for_three_neurons
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, lab.steps)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        points, arm = _spirals(number)
        with lab.recorder.step("train"):
            descend(F.cross_entropy(model(points), arm), optimizer)
        schedule.step()
        lab.validate(lambda n: _spirals(9000 + n), lambda x, y: F.cross_entropy(model(x), y), number)


class _Descent(torch.optim.Optimizer):
    """Gradient descent by hand, for weights and for biases."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, *, right: bool) -> None:
        super().__init__(parameters, {"lr": lr})
        self.right = right

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """w <- w - lr * dw, b <- b - lr * db."""
        for group in self.param_groups:
            rate = group["lr"]
            for parameter in group["params"]:
                if parameter.dim() > 1 or self.right:
                    parameter.sub_(rate * parameter.grad)
                else:
                    parameter.sub_(rate)  # bug: biases_that_only_fall


class _Regressor(nn.Module):
    """Two hidden layers of softplus units for a table of numbers."""

    def __init__(self, inputs: int, width: int = 32) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(inputs, width), nn.Linear(width, width), nn.Linear(width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(F.softplus(self.second(F.softplus(self.first(x)))))


def _engines(number: int) -> _Batch:
    """Eight standardised readings of engines ``(64, 8)``, and the power of each, standardised ``(64, 1)``."""
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(64, 8, generator=generator)
    power = x[:, 0] + 0.7 * x[:, 1] * x[:, 2].tanh() + 0.5 * x[:, 3].abs() - 0.4
    return x, (power + 0.1 * torch.randn(64, generator=generator))[:, None] / 1.25


@broken(
    words=("whatever the gradient", "regardless of", "do not follow", "same amount", "update of the bias"),
    nodes=("model.first.bias", "model.second.bias", "model.out.bias", "model.first", "model.second", "model.out"),
)
def biases_that_only_fall(lab: Lab) -> None:
    """The hand-written update subtracts the learning rate from each bias, and not the rate times the bias' gradient.

    Source: Goodfellow et al., Deep Learning, 11.5, the bug in the update for the biases, b <- b - alpha.
    """
    model = _Regressor(8)
    optimizer = _Descent(model.parameters(), 0.1, right=lab.fixed)

    def loss_of(x: torch.Tensor, power: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(x), power)

    after = lab.validating(model, lambda number: _engines(9000 + number), loss_of)
    lab.fit(model, _engines, loss_of, optimizer, after=after)
