"""Mistakes in nets that fit numbers, as they were asked about on question-and-answer sites."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab

_Batch = tuple[torch.Tensor, ...]


def _endless(loader: DataLoader[_Batch], steps: int) -> Iterator[tuple[int, _Batch]]:
    """The batches of as many epochs as make ``steps`` steps."""
    number = 0
    while True:
        for batch in loader:
            if number == steps:
                return
            yield number, batch
            number += 1


def _patients(rows: int, seed: int) -> _Batch:
    """Six standardised answers of patients, and an index of their health from -0.45 to 1 ``(rows, 1)``."""
    generator = torch.Generator().manual_seed(seed)
    answers = torch.randn(rows, 6, generator=generator)
    burden = answers @ torch.tensor([1.0, 0.8, 0.6, -0.5, 0.4, 0.3]) + 0.2 * torch.randn(rows, generator=generator)
    return answers, (0.275 - 0.725 * (0.9 * burden).tanh())[:, None]


@broken(words=("squared target", "lose their sign", "loses its sign", "folded"), nodes=("target",))
def squared_to_fit_the_unit_interval(lab: Lab) -> None:
    """An index of health between -0.45 and 1 is squared to fit a sigmoid, which makes very ill patients look less ill.

    Source: answerofmath.com, neural network for regression, actual data vs predicted data (nnet, squared targets).
    """
    answers, health = _patients(1200, 0)
    low, span = -0.454, 1.454
    scaled = (health - low) / span if lab.fixed else health**2  # set-up bug: squared_to_fit_the_unit_interval
    model = nn.Sequential(nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 1), nn.Sigmoid())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    lab.recorder.watch(model, optimizer)
    loader = DataLoader(TensorDataset(answers, scaled.clamp(0, 1)), 48, shuffle=True, drop_last=True)

    def error(answers: torch.Tensor, health: torch.Tensor) -> torch.Tensor:
        said = model(answers)
        return F.mse_loss(said * span + low if lab.fixed else said.sqrt(), health)

    after = lab.validating(model, lambda _: _patients(400, 1), error)
    for number, (rows, goal) in _endless(loader, lab.steps):
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            loss = F.mse_loss(model(rows), goal)
            loss.backward()
            optimizer.step()
        after(number)


class _Line(nn.Module):
    """One linear layer without bias, which shall give a number for each row."""

    def __init__(self, inputs: int, *, assign: bool) -> None:
        super().__init__()
        self.layer1 = nn.Linear(inputs, 1, bias=False)
        self.assign = assign

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer1(x)
        if self.assign:
            x = x.squeeze(1)
        else:
            x.squeeze(1)  # bug: squeeze_that_changes_nothing
        return x


@broken(rules=("broadcast-target",), words=("broadcast", "squeeze"), nodes=("model", "target", "loss"))
def squeeze_that_changes_nothing(lab: Lab) -> None:
    """What ``squeeze`` returns is thrown away, so that a column of outputs is subtracted from a row of targets.

    Source: discuss.pytorch.org 50431, why the model fails to converge without a manual weight initialization.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5000, 4, generator=generator)
    y = x @ torch.tensor([5.0, 3.0, -2.0, 1.0]) + torch.randn(5000, generator=generator)
    model = _Line(4, assign=lab.fixed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    lab.recorder.watch(model, optimizer)
    loader = DataLoader(TensorDataset(x, y), batch_size=100, shuffle=True)
    for _, (rows, truth) in _endless(loader, lab.steps):
        with lab.recorder.step("train"):
            model.zero_grad()
            loss = ((model(rows) - truth) ** 2).mean()
            loss.backward()
            optimizer.step()


_CORNERS = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])


def _exclusive(number: int) -> _Batch:
    """Points ``(32, 2)`` near the corners of a square centred at zero, and the exclusive or of the corner."""
    generator = torch.Generator().manual_seed(number)
    corner = torch.randint(4, (32,), generator=generator)
    points = 2 * _CORNERS[corner] - 1 + 0.15 * torch.randn(32, 2, generator=generator)
    return points, (_CORNERS[corner].sum(1, keepdim=True) == 1).float()


@broken(rules=("single-unit",), words=("capacity", "too few", "wider", "narrow"), nodes=("model.0", "model"))
def two_hidden_units_for_exclusive_or(lab: Lab) -> None:
    """The exclusive or is to be learned with two hidden sigmoid units, too few to find the way out of a saddle.

    Source: discuss.pytorch.org 13287, unable to learn XOR with two layers (a hidden dimension of 20 converges).
    """
    hidden = 20 if lab.fixed else 2  # set-up bug: two_hidden_units_for_exclusive_or
    model = nn.Sequential(nn.Linear(2, hidden), nn.Sigmoid(), nn.Linear(hidden, 1))
    criterion = nn.BCEWithLogitsLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    lab.fit(model, _exclusive, lambda points, either: criterion(model(points), either), optimizer)


class _Surface(nn.Module):
    """Three linear layers for a height over the plane."""

    def __init__(self) -> None:
        super().__init__()
        self.linear_1, self.act_1 = nn.Linear(2, 24), nn.ReLU()
        self.linear_2, self.act_2 = nn.Linear(24, 12), nn.ReLU()
        self.linear_3 = nn.Linear(12, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear_3(self.act_2(self.linear_2(self.act_1(self.linear_1(x)))))


@broken(rules=("broadcast-target",), words=("broadcast",), nodes=("model", "target", "loss"))
def heights_of_a_paraboloid_in_a_row(lab: Lab) -> None:
    """The heights of a paraboloid are one row, the predictions a column, and the squared error compares all with all.

    Source: datascience.stackexchange.com 115368, network that tries to approximate z = x^2 + y^2 not converging.
    """
    generator = torch.Generator().manual_seed(0)
    places = torch.rand(1000, 2, generator=generator)
    heights = places.square().sum(1)
    if lab.fixed:
        heights = heights[:, None]
    train, unseen = (places[:850], heights[:850]), (places[850:], heights[850:].view(-1, 1))
    model, loss_function = _Surface(), nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda _: unseen, lambda x, z: loss_function(model(x), z))
    for number, (x, z) in _endless(DataLoader(TensorDataset(*train), 64, shuffle=True, drop_last=True), 200):
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            loss = loss_function(model(x), z)  # bug: heights_of_a_paraboloid_in_a_row
            loss.backward()
            optimizer.step()
        after(number)


@broken(rules=("learning-rate",), words=("learning rate",), nodes=("model.weight", "model.bias"))
def default_rate_for_numbers_up_to_twenty(lab: Lab) -> None:
    """A line through numbers up to twenty is fitted with the default rate of SGD, at which each step overshoots more.

    Source: fixeme.com, why is my loss function increasing with each epoch (learning rate too large).
    """
    x = torch.arange(1.0, 21.0)[:, None]
    y = 0.5 * x
    rate = 0.004 if lab.fixed else 0.01  # set-up bug: default_rate_for_numbers_up_to_twenty
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    lab.recorder.watch(model, optimizer)
    for _ in range(lab.steps):
        with lab.recorder.step("train"):
            loss = F.mse_loss(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _plays(number: int) -> _Batch:
    """What a player sees ``(64, 10)``, standardised, and which of six moves follows."""
    generator = torch.Generator().manual_seed(number)
    seen = torch.randn(64, 10, generator=generator)
    habits = torch.randn(10, 6, generator=torch.Generator().manual_seed(3))
    return seen, (2 * seen @ habits + (seen[:, :6] * seen[:, 1:7]) + torch.randn(64, 6, generator=generator)).argmax(1)


class _Bot(nn.Module):
    """Says how likely each move is."""

    def __init__(self, *, scores: bool) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(10, 48), nn.LeakyReLU(), nn.Linear(48, 48), nn.LeakyReLU())
        self.moves = nn.Linear(48, 6)
        self.scores = scores

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        scores = self.moves(self.inner(seen))
        return scores if self.scores else scores.softmax(1)  # bug: moves_pass_softmax_twice


@broken(rules=("activation-before-loss",), words=("softmax",), nodes=("model", "loss"))
def moves_pass_softmax_twice(lab: Lab) -> None:
    """A bot gives the probabilities of its moves to a cross-entropy which applies the softmax a second time.

    Source: David-Durst/csknow 2, comments from a squirrel (applying softmax twice by accident).
    """
    model = _Bot(scores=lab.fixed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def loss_of(seen: torch.Tensor, move: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(seen), move)

    def right(seen: torch.Tensor, move: torch.Tensor) -> torch.Tensor:
        said = model(seen)
        return F.nll_loss(said.log_softmax(1) if lab.fixed else said.log(), move)

    after = lab.validating(model, lambda number: _plays(9000 + number), right)
    lab.fit(model, _plays, loss_of, optimizer, after=after)
