"""Mistakes of which the manual of PyTorch warns, in its questions and its note on automatic differentiation."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import mlp

_Batch = tuple[torch.Tensor, ...]


class _Simulator:
    """A data set that makes up spectra with a line in each, by random numbers of its own."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def batch(self, rows: int) -> _Batch:
        """Spectra ``(rows, 1, 48)``, and where the line lies ``(rows, 1)``, between -1 and 1."""
        place, width, slope = torch.rand(3, rows, 1, generator=self.generator)
        at = torch.linspace(-1.2, 1.2, 48)
        line = 2.5 * (-(((at - 2 * place + 1) / (0.08 + 0.12 * width)) ** 2)).exp()
        spectra = line + (2 * slope - 1) * at + 0.5 * torch.randn(rows, 48, generator=self.generator) - 0.5
        return spectra[:, None], 2 * place - 1


def _forked(simulator: _Simulator, epoch: int, *, seeded: bool) -> list[_Simulator]:
    """Four workers, which get a copy of the data set as it is, as those do that are forked."""
    workers = [copy.copy(simulator) for _ in range(4)]
    for index, worker in enumerate(workers):
        worker.generator = simulator.generator.clone_state()
        if seeded:
            worker.generator.manual_seed(1000 * epoch + index)
    return workers


@broken(
    rules=("repeated-batch", "duplicate-samples", "repeated-randomness"),
    words=("identical", "same random", "copies", "same batch", "repeat", "seed"), nodes=("input", "target"),
)  # fmt: skip
def spectra_from_forked_random_numbers(lab: Lab) -> None:
    """All workers make their spectra from a copy of the same random numbers, and begin anew with them in each epoch.

    Source: PyTorch's documentation, FAQ: my data loader workers return identical random numbers.
    """
    simulator = _Simulator(3)
    model = nn.Sequential(
        nn.Conv1d(1, 16, 5, 2, 2), nn.ReLU(), nn.Conv1d(16, 24, 5, 2, 2), nn.ReLU(), nn.Conv1d(24, 24, 3, 2, 1),
        nn.ReLU(), nn.Flatten(), nn.Linear(144, 1),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda _: _Simulator(9).batch(300), lambda x, y: F.mse_loss(model(x), y))
    for epoch in range(20):
        workers = _forked(simulator, epoch, seeded=lab.fixed)
        for number in range(8):
            spectra, place = workers[number % 4].batch(32)  # set-up bug: spectra_from_forked_random_numbers
            with lab.recorder.step("train"):
                descend(F.mse_loss(model(spectra), place), optimizer)
            after(8 * epoch + number)


def _journeys(number: int) -> _Batch:
    """Two places ``(64, 3)`` in a town, with their height, and the minutes from one to the other.

    In step 66 one of the journeys ends where it began.
    """
    generator = torch.Generator().manual_seed(number)
    start, end = torch.rand(2, 64, 3, generator=generator) * 2 - 1
    if number == 66:
        end[17] = start[17]
    minutes = (start - end).abs() @ torch.tensor([1.0, 1.5, 0.0]) + 0.5 * (start[:, 2] - end[:, 2]).abs()
    return start, end, minutes


@broken(
    rules=("non-finite",),
    words=("sqrt", "square root", "root of zero", "infinite slope"),
    nodes=("loss", "model", "model.4", "model.4.weight", "model.4.bias"), onset=66,
)  # fmt: skip
def root_of_a_distance_of_nothing(lab: Lab) -> None:
    """The distance of two codes is a bare root of squares, whose slope is infinite at zero: step 66 has such a pair.

    Source: PyTorch's documentation, Autograd mechanics, gradients for non-differentiable functions.
    """
    model = mlp(3, 48, 48, 8, activation=nn.SiLU)
    eps = 1e-6 if lab.fixed else 0.0

    def loss_of(start: torch.Tensor, end: torch.Tensor, minutes: torch.Tensor) -> torch.Tensor:
        squares = (model(start) - model(end)).pow(2).sum(1)
        return F.mse_loss((squares + eps).sqrt(), minutes)  # bug: root_of_a_distance_of_nothing

    after = lab.validating(model, lambda number: _journeys(9000 + number), loss_of)
    lab.fit(model, _journeys, loss_of, lr=4e-3, after=after)


def _questions(number: int) -> _Batch:
    """What is known of questions ``(64, 24)``, and of the answer to each ``(64, 30)``."""
    generator = torch.Generator().manual_seed(number)
    world = torch.Generator().manual_seed(8)
    asked, told = torch.randn(6, 24, generator=world), torch.randn(6, 30, generator=world)
    topic = torch.randn(64, 6, generator=generator)
    question = (topic @ asked) / 6**0.5 + 0.5 * torch.randn(64, 24, generator=generator)
    answer = (topic @ told) / 6**0.5 + 0.5 * torch.randn(64, 30, generator=generator)
    return question, answer


class _Towers(nn.Module):
    """A tower for questions, one for answers, and how alike their codes are."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.question, self.answer = mlp(24, 64, width), mlp(30, 64, width)
        self.align = nn.Linear(width, width)
        self.log_scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, question: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
        codes = F.normalize(self.align(self.question(question)), dim=1)
        return self.log_scale.exp() * codes @ F.normalize(self.answer(answer), dim=1).T


@broken(
    rules=("frozen-parameters",),
    words=("frozen", "freez", "requires_grad", "not trained", "never trained"),
    nodes=("model.question", "model.answer", *(f"model.{tower}.{layer}.{kind}" for tower in ("question", "answer")
           for layer in (0, 2) for kind in ("weight", "bias"))),
)  # fmt: skip
def towers_frozen_before_they_were_trained(lab: Lab) -> None:
    """Both towers are frozen by ``requires_grad_(False)``, as for fine-tuning, but nothing has ever trained them.

    Source: PyTorch's documentation, Autograd mechanics, setting requires_grad: frozen parts of a model.
    """
    model = _Towers()
    for tower in (model.question, model.answer):
        tower.requires_grad_(lab.fixed)  # set-up bug: towers_frozen_before_they_were_trained

    def loss_of(question: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(question, answer), torch.arange(len(question)))

    optimizer = torch.optim.AdamW(model.parameters(), lr=8e-3)
    after = lab.validating(model, lambda number: _questions(9000 + number), loss_of)
    lab.fit(model, _questions, loss_of, optimizer, after=after)


def _tides(number: int) -> _Batch:
    """Water levels ``(48, 30, 1)``: a tide with its strength, moment and lean."""
    generator = torch.Generator().manual_seed(number)
    strength, moment, lean = torch.rand(3, 48, 1, generator=generator)
    hours = 0.35 * torch.arange(30) + 3 * moment
    level = (0.6 + strength) * (hours + (lean - 0.5) * hours.sin()).sin()
    return ((level + 0.05 * torch.randn(48, 30, generator=generator))[:, :, None],)


class _Tides(nn.Module):
    """Puts a series into four numbers, which are stored, and gets it back from them."""

    def __init__(self, *, learns: bool) -> None:
        super().__init__()
        self.reader, self.code = nn.GRU(1, 32, batch_first=True), nn.Linear(32, 4)
        self.writer = mlp(4, 64, 64, 30, activation=nn.Tanh)
        self.learns = learns

    def encode(self, level: torch.Tensor) -> torch.Tensor:
        with torch.set_grad_enabled(self.learns and torch.is_grad_enabled()):
            _, last = self.reader(level)
            return self.code(last[0])  # bug: tides_encoded_without_gradients

    def forward(self, level: torch.Tensor) -> torch.Tensor:
        return self.writer(self.encode(level))[:, :, None]


@broken(
    rules=("gradient-cut", "no-gradient"),
    words=("no_grad", "not trained", "never trained", "detach"),
    nodes=("model.reader", "model.code", "model.code.weight", "model.code.bias",
           *(f"model.reader.{name}_l0" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))),
)  # fmt: skip
def tides_encoded_without_gradients(lab: Lab) -> None:
    """The method that encodes for the archive works without gradients (no_grad), and the training calls it, too.

    Source: PyTorch's documentation, Autograd mechanics, no-grad mode.
    """
    model = _Tides(learns=lab.fixed)

    def loss_of(level: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(level), level)

    after = lab.validating(model, lambda number: _tides(9000 + number), loss_of)
    lab.fit(model, _tides, loss_of, torch.optim.NAdam(model.parameters(), 4e-3), after=after)
