"""Mistakes in nets that read sequences, as users told of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _sales(number: int) -> _Batch:
    """Sales of a year by the month, 20 to 380 pieces ``(32, 12, 1)``, and how the next month will be ``(32, 1)``."""
    generator = torch.Generator().manual_seed(number)
    level = 100 + 200 * torch.rand(32, 1, generator=generator)
    swing, phase = 20 + 60 * torch.rand(32, 1, generator=generator), 6.2832 * torch.rand(32, 1, generator=generator)
    months = level + swing * (torch.arange(13.0) * 6.2832 / 12 + phase).sin()
    months = months + 4 * torch.randn(32, 13, generator=generator)
    return months[:, :12, None], (months[:, 12:] - 200) / 75


class _Reader(nn.Module):
    """An LSTM over the months, and a forecast out of its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(1, 24, batch_first=True), nn.Linear(24, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(x)
        return self.head(states[:, -1])


@broken(
    rules=("input-scale",),
    words=("scale", "normalis", "standardis"),
    nodes=("input.x", "model.lstm", "model.lstm.weight_ih_l0"),
)
def months_as_they_were_counted(lab: Lab) -> None:
    """The LSTM reads numbers of pieces in the hundreds as they are, which drive its gates into saturation.

    Source: ai.stackexchange 16779, why regression LSTMs learn high to low better than low to high (saturated tanh).
    """
    model = _Reader()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    lab.recorder.watch(model, optimizer)

    def loss_of(sold: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        months = (sold - 200) / 75 if lab.fixed else sold  # bug: months_as_they_were_counted
        return F.mse_loss(model(months), following)

    for number in range(150):
        sold, following = _sales(number)
        with lab.recorder.step("train"):
            loss = loss_of(sold, following)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        lab.validate(lambda n: _sales(9000 + n), loss_of, number)


def _reviews(number: int) -> _Batch:
    """Words of reviews ``(48, 24)``, zeros after the 3 to 24 of them, and how good each is on the whole ``(48,)``."""
    generator = torch.Generator().manual_seed(number)
    worth = torch.randn(80, generator=torch.Generator().manual_seed(3))
    worth[0] = 0.0
    leaning = torch.randn(48, 1, generator=generator)
    candidates = torch.randint(1, 80, (48, 24, 6), generator=generator)
    best = (worth[candidates] - leaning[:, :, None]).abs().argmin(2, keepdim=True)
    words = candidates.gather(2, best)[:, :, 0]
    length = torch.randint(3, 25, (48, 1), generator=generator)
    words = words * (torch.arange(24) < length)
    return words, worth[words].sum(1) / length[:, 0]


class _Critic(nn.Module):
    """Reads each word by itself, and averages what it read."""

    def __init__(self, *, fixed: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(80, 24, padding_idx=0)
        self.reader = nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 1)
        self.fixed = fixed

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        read = self.reader(self.embedding(words))
        there = (words > 0).float()[:, :, None]
        mean = (read * there).sum(1) / there.sum(1) if self.fixed else read.mean(1)  # bug: words_averaged_with_blanks
        return self.head(mean).squeeze(1)


@broken(words=("pad", "mask"), nodes=("input.words", "model", "model.reader", "model.head"))
def words_averaged_with_blanks(lab: Lab) -> None:
    """The mean over the words of a review takes in the padding behind its last word, without a mask.

    Source: jina-ai/clip-as-service 76, finetuning example (the sequence was not masked in reduce_mean).
    """
    model = _Critic(fixed=lab.fixed)

    def loss_of(words: torch.Tensor, worth: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(words), worth)

    after = lab.validating(model, lambda n: _reviews(9000 + n), loss_of)
    lab.fit(model, _reviews, loss_of, lr=5e-3, after=after)


class _Snake(nn.Module):
    """An activation for periodic functions, ``x + sin(a x)^2 / a``, with a frequency of its own for each unit."""

    def __init__(self, units: int, *, fixed: bool) -> None:
        super().__init__()
        start = torch.full((1, units), 0.2)
        self.a = nn.Parameter(start.squeeze()) if fixed else nn.Parameter(start).squeeze()  # set-up bug: snake_squeezed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + (self.a * x).sin().square() / self.a


def _tides(number: int) -> _Batch:
    """Times between -2 and 2 ``(64, 1)``, and how high the water stands then ``(64, 1)``."""
    generator = torch.Generator().manual_seed(number)
    time = 4 * torch.rand(64, 1, generator=generator) - 2
    height = (3 * time).sin() + 0.5 * (5 * time + 1).cos()
    return time, height + 0.05 * torch.randn(64, 1, generator=generator)


@broken(
    rules=("unregistered-parameters",),
    words=("regist", "leaf", "nn.parameter", "plain tensor"),
    nodes=("model.1", "model.3"),
)
def snake_squeezed(lab: Lab) -> None:
    """The frequencies of an activation are squeezed after they became a parameter, and are none any more.

    Source: EdwardDixon/snake 2, fix gradients update (squeeze after Parameter).
    """
    model = nn.Sequential(
        nn.Linear(1, 32), _Snake(32, fixed=lab.fixed), nn.Linear(32, 32), _Snake(32, fixed=lab.fixed), nn.Linear(32, 1)
    )

    def loss_of(time: torch.Tensor, height: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(time), height)

    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    lab.recorder.watch(model, optimizer)
    for number in range(300):
        with lab.recorder.step("train"):
            descend(loss_of(*_tides(number)), optimizer)
        lab.validate(lambda n: _tides(9000 + n), loss_of, number)


def _prices(number: int) -> _Batch:
    """Standardised prices of twenty-five hours ``(32, 25)``, that go up and down every six hours."""
    generator = torch.Generator().manual_seed(number)
    phase = 6.2832 * torch.rand(32, 1, generator=generator)
    size = 0.6 + 0.8 * torch.rand(32, 1, generator=generator)
    return (size * (torch.arange(25.0) * 6.2832 / 6 + phase).sin() + 0.2 * torch.randn(32, 25, generator=generator),)


class _Forecaster(nn.Module):
    """A GRU over the last day, and the price of the hour that follows."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(1, 24, batch_first=True), nn.Linear(24, 1)

    def forward(self, past: torch.Tensor) -> torch.Tensor:
        return self.head(self.gru(past[:, :, None])[0][:, -1]).squeeze(1)


@broken(
    rules=("targets-equal-inputs",),
    words=("leak", "off by one", "off-by-one", "copies", "among the input"),
    nodes=("input.past", "input.target", "loss"),
)
def hour_that_is_known_already(lab: Lab) -> None:
    """The price to forecast is the last one of the window that the net is shown, off by one hour: it learns to copy.

    Source: activewizardslab/time-series 1, corrected an off-by-one error.
    """
    model = _Forecaster()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    lab.recorder.watch(model, optimizer)
    for number in range(150):
        (prices,) = _prices(number)
        with lab.recorder.step("train"):
            price = prices[:, 24] if lab.fixed else prices[:, 23]  # bug: hour_that_is_known_already
            descend(F.mse_loss(model(prices[:, :24]), price), optimizer)
        lab.validate(lambda n: _prices(9000 + n), lambda day: F.mse_loss(model(day[:, :24]), day[:, 24]), number)
