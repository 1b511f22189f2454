"""Mistakes in nets that say how a series of numbers goes on."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Batches, Lab

_Batch = tuple[torch.Tensor, ...]


def _waves(number: int, batch: int, length: int, *, noise: float = 0.1) -> torch.Tensor:
    """Sums of two waves of random phase and pace, ``(batch, length)``, with a little noise."""
    generator = torch.Generator().manual_seed(number)
    phase, other, pace = torch.rand(3, batch, 1, generator=generator)
    time = torch.arange(length) * (0.3 + 0.4 * pace)
    wave = (time + 6.3 * phase).sin() + 0.5 * (2.3 * time + 6.3 * other).sin()
    return wave + noise * torch.randn(wave.shape, generator=generator)


def _validated(
    lab: Lab, model: nn.Module, batches: Batches, loss_of: Callable[..., torch.Tensor]
) -> Callable[[int], None]:
    """Validates in evaluation mode on other series, if it is time for that."""

    def after(number: int) -> None:
        model.eval()
        lab.validate(lambda number: batches(10_000 + number), loss_of, number)
        model.train()

    return after


class _TwoWays(nn.Module):
    """An LSTM whose two directions are added up before a linear layer."""

    def __init__(self, width: int = 32, *, both: bool) -> None:
        super().__init__()
        self.directions = 2 if both else 1
        self.lstm = nn.LSTM(1, width, batch_first=True, bidirectional=both)  # set-up bug: next_value_read_from_behind
        self.fc = nn.Linear(width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out, _ = self.lstm(x)
        out = out.unflatten(2, (self.directions, -1)).sum(2)
        return self.fc(out)


@broken(
    rules=("future-leak", "targets-equal-inputs"),
    words=("future", "later position", "later moment", "later token", "bidirectional", "both directions"),
    nodes=("model.lstm",),
)  # fmt: skip
def next_value_read_from_behind(lab: Lab) -> None:
    """A bidirectional LSTM shall say the next value at each moment, which its way back has already read.

    Source: PyTorch forum 175731, one layer BiLSTM is not learning.
    """
    model = _TwoWays(both=not lab.fixed)

    def batches(number: int) -> _Batch:
        series = _waves(number, 32, 25)[:, :, None]
        return series[:, :-1], series[:, 1:]

    after = _validated(lab, model, batches, lambda x, y: F.mse_loss(model(x)[:, -1], y[:, -1]))
    lab.fit(model, batches, lambda x, y: F.mse_loss(model(x), y), lr=5e-3, after=after)


class _Counting(nn.Module):
    """A transformer that reads numbers in a row, and says the next one."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.lift, self.lin = nn.Linear(1, width), nn.Linear(length * width, 1)
        self.tgt = torch.rand(1, length, width)
        layer = nn.TransformerEncoderLayer(width, 1, 32, dropout=0.0, batch_first=True)
        encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(width), enable_nested_tensor=False)
        self.trans = nn.Transformer(  # set-up bug: normalised_over_a_single_feature
            width, 1, 2, 1, 32, dropout=0.0, custom_encoder=encoder, batch_first=True
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.trans(self.lift(x), self.tgt.expand(len(x), -1, -1))
        return self.lin(y.flatten(1))


@broken(
    words=("one feature", "single feature", "over one value", "width 1", "width of 1"),
    nodes=("model.trans", "model.trans.encoder.layers.0.norm1", "model.trans.decoder.norm"),
)  # fmt: skip
def normalised_over_a_single_feature(lab: Lab) -> None:
    """The transformer is one number wide, so that each of its layer norms makes a constant of whatever it gets.

    Source: PyTorch forum 184454, transformer cannot predict next number in linear sequence.
    """
    model = _Counting(20, 16 if lab.fixed else 1)

    def batches(number: int) -> _Batch:
        start = torch.randint(100, (16,), generator=torch.Generator().manual_seed(number))
        numbers = (start[:, None] + torch.arange(21)) / 50 - 1
        return numbers[:, :-1, None], numbers[:, -1:]

    lab.fit(model, batches, lambda x, y: (model(x) - y).norm(dim=1).mean())


class _Fusion(nn.Module):
    """A small temporal fusion transformer: an LSTM, attention and gates, for seven quantiles of what follows."""

    def __init__(self, width: int = 24, horizon: int = 8) -> None:
        super().__init__()
        self.horizon = horizon
        self.lift = nn.Linear(2, width)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.attend = nn.MultiheadAttention(width, 2, batch_first=True)
        self.gate = nn.Sequential(nn.Linear(width, 2 * width), nn.GLU())
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, 7)

    def forward(self, past: torch.Tensor) -> torch.Tensor:
        known = F.pad(past, (0, self.horizon))
        time = torch.linspace(-1, 1, known.shape[1]).expand_as(known)
        states, _ = self.lstm(self.lift(torch.stack([known, time], dim=2)))
        seen, _ = self.attend(states[:, -self.horizon :], states, states, need_weights=False)
        return self.output(self.norm(states[:, -self.horizon :] + self.gate(seen)))


def _quantile_loss(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    shares = torch.tensor([0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98])
    error = wanted[:, :, None] - found
    return torch.maximum(shares * error, (shares - 1) * error).mean()


@broken(
    rules=("learning-rate",),
    words=("learning rate",),
    nodes=("loss", "model.lstm.weight_hh_l0", "model.output.weight"),
)  # fmt: skip
def rate_of_six_tenths(lab: Lab) -> None:
    """A temporal fusion transformer is trained with a learning rate of 0.6, half of what a finder had proposed.

    Source: pytorch-forecasting issue 344, the prediction of a temporal fusion transformer is a straight line.
    """
    model = _Fusion()
    rate = 0.01 if lab.fixed else 0.6  # set-up bug: rate_of_six_tenths
    optimizer = torch.optim.Adam(model.parameters(), rate)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=40)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        series = _waves(number, 32, 32)
        with lab.recorder.step("train"):
            loss = _quantile_loss(model(series[:, :24]), series[:, 24:])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
        plateau.step(loss.item())


class _Last(nn.Module):
    """An LSTM, a linear layer at each moment, and all of that in one row."""

    def __init__(self, *, last: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, 20)
        self.fc = nn.Linear(20, 1 if last else 2)
        self.flatten = nn.Flatten(start_dim=1, end_dim=2)
        self.last = last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, _ = self.lstm(x)
        x = self.fc(x).transpose(0, 1)
        return x[:, -1, 0] if self.last else self.flatten(x)  # bug: one_target_for_twenty_outputs


@broken(rules=("broadcast-target",), words=("broadcast",), nodes=("model", "target", "loss"))
def one_target_for_twenty_outputs(lab: Lab) -> None:
    """The outputs of all moments, 20 in a row, are compared with the one number that follows, by broadcasting.

    Source: PyTorch forum 202270, in a number sequence 1, 2, 3, 4 estimate the next number using LSTM.
    """
    model = _Last(last=lab.fixed)

    def batches(number: int) -> _Batch:
        start = torch.randint(90, (1,), generator=torch.Generator().manual_seed(number))
        numbers = (start + torch.arange(11.0)) / 50 - 1
        return numbers[:-1, None, None], numbers[-1:]

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with warnings.catch_warnings():  # PyTorch warns of it
            warnings.simplefilter("ignore", UserWarning)
            return F.mse_loss(model(x), y)

    lab.fit(model, batches, loss_of, lr=5e-3, after=_validated(lab, model, batches, loss_of))


class _Forecaster(nn.Module):
    """Encoder and decoder layers on numbers: reads 16, and is given the ones before those it shall say."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.encoder_input, self.decoder_input = nn.Linear(1, width), nn.Linear(1, width)
        self.place = nn.Parameter(0.1 * torch.randn(16, width))
        self.encoder = nn.TransformerEncoderLayer(width, 4, 64, 0.1, batch_first=True)
        self.decoder = nn.TransformerDecoderLayer(width, 4, 64, 0.1, batch_first=True)
        self.head = nn.Linear(width, 1)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        memory = self.encoder(self.encoder_input(source) + self.place)
        x = self.decoder_input(target) + self.place[: target.shape[1]]
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        return self.head(self.decoder(x, memory, mask))


@broken(
    rules=("accumulated-gradients",),
    words=("zero_grad",),
    nodes=("model.encoder.linear1.weight", "model.decoder.linear1.weight", "model.head.weight"),
)  # fmt: skip
def forecaster_without_clearing(lab: Lab) -> None:
    """The training loop of a forecasting transformer never clears the gradients.

    Source: KasperGroesLudvigsen/influenza_transformer issue 13, time series transformer doesn't converge.
    """
    model = _Forecaster()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        series = _waves(number, 16, 24)[:, :, None]
        with lab.recorder.step("train"):
            loss = F.mse_loss(model(series[:, :16], series[:, 15:-1]), series[:, 16:])
            if lab.fixed:
                optimizer.zero_grad()
            loss.backward()  # set-up bug: forecaster_without_clearing
            optimizer.step()
