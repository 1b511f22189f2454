"""Mistakes in losses, optimizers and layers that people were puzzled about, and whose cause they were told."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _rooms(number: int) -> _Batch:
    """Views into rooms ``(16, 1, 16, 16)``, brighter where they are nearer, and the depth of each place.

    The floor comes nearer towards the lower edge, and a box stands on it.
    """
    generator = torch.Generator().manual_seed(number)
    rows = torch.linspace(0, 1, 16)[:, None]
    near = rows * (0.5 + torch.rand(16, 1, 1, generator=generator)) * torch.ones(16)
    left, top = torch.randint(9, (2, 16, 1, 1), generator=generator)
    places = torch.arange(16)
    inside = ((places - left) % 16 < 6) & ((places[:, None] - top) % 16 < 6)
    near = torch.where(inside, near + 0.6, near)
    view = 2 * (1 / (1 + near) - 0.65) * (1 + 0.2 * torch.randn(16, 1, 1, generator=generator))
    depth = (1 / (1 + near) - 0.65) / 0.17
    return (-2 * view + 0.15 * torch.randn(16, 16, 16, generator=generator))[:, None], depth[:, None]


class _DepthNet(nn.Module):
    """Convolutions down and up again, with a way past the bottom."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 16, 5, padding=2), nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.upconv = nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1)
        self.predict_disp = nn.Conv2d(32, 1, 3, padding=1)

    def forward(self, view: torch.Tensor) -> torch.Tensor:
        first = F.elu(self.conv1(view))
        up = F.elu(self.upconv(F.elu(self.conv2(first))))
        return self.predict_disp(torch.cat([first, up], dim=1))


class _StepDecay:
    """Multiplies the learning rate every so many steps."""

    def __init__(self, optimizer: torch.optim.Optimizer, *, every: int, gamma: float) -> None:
        self.optimizer, self.every, self.gamma, self.steps = optimizer, every, gamma, 0

    def step(self) -> None:
        self.steps += 1
        if self.steps % self.every == 0:
            for group in self.optimizer.param_groups:
                group["lr"] *= self.gamma


@broken(
    rules=("unchanged-parameters",),
    words=("optimizer.step", "no step", "never steps"),
    nodes=("model", "model.conv1.weight", "model.conv2.weight", "model.upconv.weight", "model.predict_disp.weight"),
)
def either_the_scheduler_or_the_optimizer(lab: Lab) -> None:
    """Where there is a scheduler, the loop steps the scheduler instead of the optimizer, and no weight ever moves.

    Source: ClementPinard/SfmLearner-Pytorch 5, the loss does not come down with the scheduler.
    """
    model = _DepthNet()
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3, betas=(0.9, 0.999))
    scheduler = _StepDecay(optimizer, every=50, gamma=0.5)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda n: _rooms(9000 + n), lambda view, depth: F.l1_loss(model(view), depth))
    for number in range(lab.steps):
        view, depth = _rooms(number)
        with lab.recorder.step("train"):
            loss = F.l1_loss(model(view), depth)
            optimizer.zero_grad()
            loss.backward()
            if lab.fixed:
                optimizer.step()
            scheduler.step()  # bug: either_the_scheduler_or_the_optimizer
        after(number)


class _MyLinear(nn.Module):
    """A dense layer with ReLU, written by hand."""

    def __init__(self, inputs: int, units: int, *, plain: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, units) * math.sqrt(2 / inputs))
        self.bias = nn.Parameter(torch.zeros(units))
        self.plain = plain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.plain:
            return F.relu(x @ self.weight + self.bias)
        return F.relu(torch.matmul(x, self.weight.data) + self.bias.data)  # bug: layers_that_read_their_data


def _springs(number: int) -> _Batch:
    """Eight measurements of a machine ``(64, 8)``, and how long it will run ``(64, 1)``, standardised."""
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(64, 8, generator=generator)
    runs = (1.5 * x[:, 0]).sin() + 0.7 * x[:, 1] * x[:, 2] + (x[:, 3] - 0.5 * x[:, 4]).abs() - 0.9
    return x, (runs / 1.25 + 0.1 * torch.randn(64, generator=generator))[:, None]


@broken(
    rules=("gradient-cut", "no-gradient"),
    words=(".data", "detach", "cut off"),
    nodes=("model.0", "model.1", "model.0.weight", "model.0.bias", "model.1.weight", "model.1.bias"),
)
def layers_that_read_their_data(lab: Lab) -> None:
    """Layers written by hand compute with ``weight.data`` and ``bias.data``, which no gradient ever reaches.

    Source: d2l-ai/d2l-en 2600, fix the custom layer to allow autograd.
    """
    model = nn.Sequential(_MyLinear(8, 24, plain=lab.fixed), _MyLinear(24, 24, plain=lab.fixed), nn.Linear(24, 1))
    criterion = nn.MSELoss()

    def loss_of(x: torch.Tensor, runs: torch.Tensor) -> torch.Tensor:
        return criterion(model(x), runs)

    after = lab.validating(model, lambda number: _springs(9000 + number), loss_of)
    lab.fit(model, _springs, loss_of, torch.optim.Adam(model.parameters(), lr=1e-2), after=after)


class _Client:
    """One of those who train a common model on what they have themselves."""

    def __init__(self, lab: Lab, model: nn.Module, eta: float) -> None:
        self.lab, self.model, self.eta = lab, model, eta
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
        self.criterion = nn.CrossEntropyLoss()
        lab.recorder.watch(model, self.optimizer)

    def cost(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        entropy = self.criterion(scores, labels)
        if self.lab.fixed:
            return entropy / self.eta
        return torch.exp(entropy / self.eta)  # bug: exponential_of_the_entropy

    def train(self, loader: DataLoader[tuple[torch.Tensor, ...]], epochs: int) -> None:
        number = 0
        for _ in range(epochs):
            for images, labels in loader:
                with self.lab.recorder.step("train"):
                    self.optimizer.zero_grad()
                    self.cost(self.model(images), labels).backward()
                    self.optimizer.step()
                self.validate(number)
                number += 1

    def validate(self, number: int) -> None:
        self.model.eval()
        self.lab.validate(
            lambda _: data.unseen_pixels(),
            lambda x, y: self.criterion(self.model(x.view(-1, 1, 8, 8)), y),
            number,
        )
        self.model.train()


@broken(words=("exp(", "exponential"), nodes=("loss",))
def exponential_of_the_entropy(lab: Lab) -> None:
    """The cost is the exponential of the cross-entropy, whose gradients grow without bounds after one bad batch.

    Source: Stack Overflow, by whosebug.com 6301115, weird behaviour of loss function in PyTorch.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Dropout(0.2), nn.Linear(512, 10),
    )  # fmt: skip
    images, labels = data.images()
    loader = DataLoader(TensorDataset(images[:1200], labels[:1200]), batch_size=16, shuffle=True)
    _Client(lab, model, eta=1.0).train(loader, epochs=2)


def _flowers(number: int) -> _Batch:
    """Lengths of leaves and stems in millimetres ``(50, 2)``, around 92, and which of two flowers it is ``(50, 1)``."""
    generator = torch.Generator().manual_seed(number)
    second = torch.randint(2, (50, 1), generator=generator).float()
    turn = 3.1416 * torch.rand(50, 1, generator=generator)
    moon = torch.cat([turn.cos(), turn.sin()], dim=1)
    moon = torch.where(second > 0, torch.tensor([1.0, 0.4]) - moon, moon)
    return 92 + 4 * (moon + 0.08 * torch.randn(50, 2, generator=generator)), second


@broken(
    rules=("input-scale",),
    words=("standardis", "normalis", "scale"),
    nodes=("input", "model.linear", "model.linear.weight"),
)
def lengths_around_ninety_two(lab: Lab) -> None:
    """Lengths in millimetres, all near 92, go into a layer of sigmoids as they are, without being normalised.

    Source: newbe.dev, PyTorch binary classification, same network structure, simpler data, but worse performance.
    """
    mean, std = torch.tensor([94.0, 92.8]), torch.tensor([3.5, 2.0])
    model = nn.Sequential()
    model.add_module("linear", nn.Linear(2, 10))
    model.add_module("hidden", nn.Sigmoid())
    model.add_module("linear2", nn.Linear(10, 1))
    model.add_module("out", nn.Sigmoid())

    def batches(number: int) -> _Batch:
        lengths, second = _flowers(number)
        return (lengths - mean) / std if lab.fixed else lengths, second  # set-up bug: lengths_around_ninety_two

    criterion = nn.BCELoss()
    after = lab.validating(model, lambda n: batches(9000 + n), lambda x, y: criterion(model(x), y))
    lab.fit(model, batches, lambda x, y: criterion(model(x), y), lr=0.03, after=after)


class _LinearRegressionModel(nn.Module):
    """A line."""

    def __init__(self) -> None:
        super().__init__()
        self.linear_layer = nn.Linear(in_features=1, out_features=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear_layer(x)


@broken(
    rules=("untrained-parameters",),
    words=("another model", "optimizer does not hold", "not given to the optimizer", "not in the optimizer"),
    nodes=("model", "model.linear_layer", "model.linear_layer.weight", "model.linear_layer.bias"),
)
def optimizer_of_the_former_model(lab: Lab) -> None:
    """The optimizer is made from the parameters of ``model_0``, the former model, while ``model_1`` is trained.

    Source: mrdbourke/pytorch-deep-learning 399, loss remains the same.
    """
    torch.manual_seed(42)
    x = torch.arange(0, 1, 0.02)[:, None]
    y = 0.7 * x + 0.3
    order = torch.randperm(50)
    train, test = order[:40], order[40:]
    model_0, model_1 = _LinearRegressionModel(), _LinearRegressionModel()
    loss_fn = nn.MSELoss()
    first = torch.optim.SGD(model_0.parameters(), lr=0.1)
    for _ in range(50):
        descend(loss_fn(model_0(x[train]), y[train]), first)
    trained = model_1 if lab.fixed else model_0
    optimizer = torch.optim.SGD(params=trained.parameters(), lr=0.2)  # set-up bug: optimizer_of_the_former_model
    lab.recorder.watch(model_1, optimizer)
    after = lab.validating(model_1, lambda _: (x[test], y[test]), lambda x, y: loss_fn(model_1(x), y))
    for number in range(lab.steps):
        with lab.recorder.step("train"):
            descend(loss_fn(model_1(x[train]), y[train]), optimizer)
        after(number)
