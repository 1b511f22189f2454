"""Fully connected networks that people asked about in forums, each with the mistake that it had there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab

_Batch = tuple[torch.Tensor, ...]


def _rows(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


class _Custom(nn.Module):
    """Seven measurements, three hidden layers, two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(7, 60), nn.Linear(60, 100)
        self.fc3, self.fc4 = nn.Linear(100, 30), nn.Linear(30, 2)
        self.apply(self._init_weights)

    @staticmethod
    def _init_weights(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.constant_(module.bias, 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        x = F.relu(self.fc3(x))
        return self.fc4(x)


def _seven_columns(*, unseen: bool) -> data.Table:
    """Seven measurements of every ninth tumour, or of the others, between 0 and 1, and their class."""
    x, y = data.raw_tumours()
    x = x[:, :7]
    x = (x - x.amin(0)) / (x.amax(0) - x.amin(0))
    rows = (torch.arange(len(x)) % 9 > 0) == unseen
    return x[rows], y[rows].long()


@broken(
    rules=("learning-rate",), words=("learning rate",),
    nodes=("loss", "model.fc1.weight", "model.fc2.weight", "model.fc3.weight", "model.fc4.weight"),
)  # fmt: skip
def sixty_rows_at_a_ten_thousandth(lab: Lab) -> None:
    """Plain gradient descent with a rate of 0.0001 hardly moves a network of four layers.

    Source: PyTorch forum 177433, loss not converging on a binary classification problem.
    """
    model = _Custom()
    rate = 0.1 if lab.fixed else 1e-4
    optimizer = torch.optim.SGD(model.parameters(), rate)  # set-up bug: sixty_rows_at_a_ten_thousandth
    unseen = data.draw(_seven_columns(unseen=True), 200)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), y)

    longer = replace(lab, steps=210)
    longer.fit(
        model, data.draw(_seven_columns(unseen=False), 15), loss_of, optimizer,
        after=lambda number: lab.validate(unseen, loss_of, number),
    )  # fmt: skip


def _parabola(number: int) -> _Batch:
    """A thousand points of a parabola with a small wave on it."""
    x = 2 * torch.randn(1000, 1, generator=_rows(1))
    return (x - x.mean()) / x.var(), x**2 - 0.2 * (3 * torch.pi * x).cos()


@broken(rules=("learning-rate",), words=("learning rate",), nodes=("loss", "model.0.weight", "model.2.weight"))
def rate_of_one_for_a_sum_of_squares(lab: Lab) -> None:
    """The squared errors of a thousand rows are summed, and the learning rate is 1: the first steps leap to infinity.

    Source: Data Science Stack Exchange 49802, why the loss is nan with a linear activation in the last layer.
    """
    model = nn.Sequential(nn.Linear(1, 10), nn.Sigmoid(), nn.Linear(10, 1))
    rate = 2e-4 if lab.fixed else 1.0
    optimizer = torch.optim.SGD(model.parameters(), rate)  # set-up bug: rate_of_one_for_a_sum_of_squares
    lab.fit(model, _parabola, lambda x, y: (y - model(x)).square().sum(), optimizer)


@broken(
    rules=("learning-rate",), words=("learning rate",),
    nodes=("loss", "model.0.weight", "model.2.weight", "model.4.weight"),
)  # fmt: skip
def descent_by_a_thousandth(lab: Lab) -> None:
    """Gradient descent with a rate of 0.001 makes the error of unscaled targets grow from thousands to infinity.

    Source: Data Science Stack Exchange 15962, why is the learning rate causing my network's weights to skyrocket.
    """
    model = nn.Sequential(
        nn.Linear(10, 32), nn.LeakyReLU(0.2), nn.Linear(32, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1)
    )  # fmt: skip
    for parameter in model.parameters():
        (nn.init.normal_ if parameter.dim() == 2 else nn.init.zeros_)(parameter)
    rate = 1e-4 if lab.fixed else 1e-3
    optimizer = torch.optim.SGD(model.parameters(), rate)  # set-up bug: descent_by_a_thousandth
    lab.fit(model, data.draw(data.raw_diabetes(), 100), lambda x, y: F.mse_loss(model(x), y), optimizer)


class _Net(nn.Module):
    """Two layers with logistic units, as in a well-known film about neural networks."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1, self.layer2 = nn.Linear(64, 100), nn.Linear(100, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.layer2(torch.sigmoid(self.layer1(x))))


@broken(
    rules=("learning-rate",), words=("learning rate",),
    nodes=("loss", "model.layer1.weight", "model.layer2.weight"),
)  # fmt: skip
def squared_error_at_a_thousandth(lab: Lab) -> None:
    """Logistic outputs with a squared error need steps hundreds of times larger than a rate of 0.001 takes.

    Source: Stack Overflow, neural network trained with PyTorch outputs the mean value for every input.
    """
    model = _Net()
    rate = 0.3 if lab.fixed else 0.001
    optimizer = torch.optim.SGD(model.parameters(), rate)  # set-up bug: squared_error_at_a_thousandth
    x, y = data.pixels()
    table = (x - x.min()) / (x.max() - x.min()), F.one_hot(y, 10).float()
    unseen_x, unseen_y = data.unseen_pixels()
    unseen = data.draw(((unseen_x - x.min()) / (x.max() - x.min()), F.one_hot(unseen_y, 10).float()), 300)

    def loss_of(images: torch.Tensor, desired: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(images), desired, reduction="none").mean(1).sum()

    longer = replace(lab, steps=300)
    longer.fit(
        model, data.draw(table, 32), loss_of, optimizer, after=lambda number: lab.validate(unseen, loss_of, number)
    )  # fmt: skip


class _Neurons(torch.autograd.Function):
    """Logistic neurons with a backward pass by hand; ``right`` says what they hand back to the layer before."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, right: bool) -> torch.Tensor:
        value = torch.sigmoid(x @ weight + bias)
        ctx.save_for_backward(x, weight, value)
        ctx.right = right
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, value = ctx.saved_tensors
        error = gradients[0] * value * (1 - value)
        handed = error if ctx.right else -value  # set-up bug: neurons_hand_back_their_value
        return handed @ weight.T, x.T @ error, error.sum(0), None


class _ByHand(nn.Module):
    """A layer of such neurons."""

    def __init__(self, inputs: int, outputs: int, *, right: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(2 * torch.rand(inputs, outputs) - 1)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.right = right

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _Neurons.apply(x, self.weight, self.bias, self.right)  # type: ignore[no-untyped-call]


def _either_or(number: int) -> _Batch:
    x = torch.randint(2, (128, 2), generator=_rows(number)).float()
    return 2 * x - 1, (x[:, :1] != x[:, 1:]).float()


@broken(
    rules=("own-backward",), words=("own backward", "backward of", "by hand"),
    nodes=("model.0", "model.1", "model.0.weight"),
)  # fmt: skip
def neurons_hand_back_their_value(lab: Lab) -> None:
    """The backward pass by hand multiplies the weights with the next neuron's value where its error belongs.

    Source: Mathematics Stack Exchange, basic neural network problem in training (XOR, output tends to 0.5).
    """
    model = nn.Sequential(_ByHand(2, 4, right=lab.fixed), _ByHand(4, 1, right=lab.fixed))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    longer = replace(lab, steps=250)
    longer.fit(model, _either_or, lambda x, y: (y - model(x)).square().sum() / 2, optimizer)


def _chances(number: int) -> _Batch:
    """Twelve whole numbers of eight bits, and a probability that they tell."""
    x = torch.randint(-128, 128, (64, 12), generator=_rows(number)).float() / 64
    return x, torch.sigmoid(x[:, :1] - x[:, 1:2] + x[:, 2:3] * x[:, 3:4])


@broken(
    rules=("unreachable-targets",), words=("softmax", "single output", "one output", "always 1"),
    nodes=("model", "model.3"),
)  # fmt: skip
def softmax_for_a_single_chance(lab: Lab) -> None:
    """The only output goes through a softmax, whose result over one number is 1 whatever goes in.

    Source: Stack Overflow 63909566, why can't I use softmax in a regression task for probabilities.
    """
    squash = nn.Sigmoid() if lab.fixed else nn.Softmax(dim=1)  # set-up bug: softmax_for_a_single_chance
    model = nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 1), squash)
    lab.fit(model, _chances, lambda x, y: F.mse_loss(model(x), y))


def _thresholds(number: int) -> _Batch:
    """Numbers up to 100,000, scaled, and whether each is above the half."""
    x = torch.rand(64, 1, generator=_rows(number))
    return 4 * x - 2, (x > 0.5).float()


@broken(rules=("unreachable-targets", "dead-units"), words=("sigmoid", "probabilit"), nodes=("model", "model.5"))
def rectified_chance(lab: Lab) -> None:
    """The output that the binary cross-entropy takes for a probability comes from a ReLU: 0, or more than 1.

    Source: Stack Overflow, why does accuracy remain the same (geeksmental), Dense(1, relu) with binary_crossentropy.
    """
    torch.manual_seed(2)
    last = nn.Sigmoid() if lab.fixed else nn.ReLU()  # set-up bug: rectified_chance
    model = nn.Sequential(nn.Linear(1, 3), nn.ReLU(), nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 1), last)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy(model(x).clamp(1e-7, 1 - 1e-7), y)

    lab.fit(model, _thresholds, loss_of, lr=1e-2)
