"""Mistakes in nets for what comes one after the other, as the published collections of faulty programs list them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Batches, Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _walks(count: int, seed: int) -> _Batch:
    """Steps of walks ``(count, 20, 5)``, padded, whether each walk is uphill by then ``(count, 20)``, and lengths."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(5, 21, (count,), generator=generator)
    steps = torch.randn(count, 20, 5, generator=generator)
    there = torch.arange(20) < lengths[:, None]
    uphill = (steps[:, :, 0] - steps[:, :, 3]).cumsum(1) > 0
    return steps * there[:, :, None], uphill.float(), there


class _Tagger(nn.Module):
    """An LSTM and a chance for each moment."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 24, batch_first=True)
        self.dropout = nn.Dropout(0.1)
        self.dense = nn.Linear(24, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(x)
        return self.dense(self.dropout(states)).squeeze(-1)


@broken(words=("epoch", "too short", "still falling", "longer"), nodes=("loss",))
def one_epoch_of_walks(lab: Lab) -> None:
    """The training ends after a single epoch of thirty batches, when the LSTM has hardly begun to learn.

    Source: DeepFD's benchmark (ICSE 2022), Stack Overflow 59282996, too few epochs for an LSTM.
    """
    epochs = 6 if lab.fixed else 1  # set-up bug: one_epoch_of_walks
    model = _Tagger()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    lab.recorder.watch(model, optimizer)
    loader = DataLoader(TensorDataset(*_walks(960, 0)), 32, shuffle=True)
    for _ in range(epochs):
        for steps, uphill, there in loader:
            with lab.recorder.step("train"):
                loss = F.binary_cross_entropy_with_logits(model(steps)[there], uphill[there])
                descend(loss, optimizer)


def _rhythms(number: int) -> _Batch:
    """Knocks ``(32, 7, 3)`` heard by three microphones, and which of four rhythms began the recording."""
    generator = torch.Generator().manual_seed(number)
    patterns = torch.tensor([[1, 0, 1, 0], [1, 1, 0, 0], [1, 0, 0, 1], [0, 1, 1, 0]]).float()
    which = torch.randint(4, (32,), generator=generator)
    loud = torch.cat([patterns[which], torch.randint(2, (32, 3), generator=generator)], dim=1)
    return loud[:, :, None] * torch.tensor([1.0, 0.6, 0.3]) + 0.2 * torch.randn(32, 7, 3, generator=generator), which


class _Listener(nn.Module):
    """An LSTM and a class from its last moment."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 48, batch_first=batch_first)
        self.fc = nn.Linear(48, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = x.new_zeros(1, x.shape[0] if self.lstm.batch_first else x.shape[1], 48)
        out, _ = self.lstm(x, (hidden, hidden))
        return self.fc(out[:, -1])


@broken(
    rules=("batch-leak",), words=("batch_first", "across the batch", "other samples"), nodes=("input", "model.lstm")
)
def recordings_read_across_the_batch(lab: Lab) -> None:
    """The LSTM expects the time first but is given the batch first: it reads across recordings, not along them.

    Source: taxonomy of Humbatova et al. (ICSE 2020), layer properties, wrong defined input shape.
    """
    model = _Listener(batch_first=lab.fixed)  # set-up bug: recordings_read_across_the_batch
    after = lab.validating(model, lambda number: _rhythms(7000 + number), lambda x, y: F.cross_entropy(model(x), y))
    lab.fit(model, _rhythms, lambda x, y: F.cross_entropy(model(x), y), lr=2e-2, after=after)


class _Letters(nn.Module):
    """The usual model of letters: embedding, GRU, decoder."""

    def __init__(self, letters: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(letters, 24)
        self.rnn = nn.GRU(24, 64, batch_first=True)
        self.decoder = nn.Linear(64, letters)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.rnn(self.embedding(x))[0])


@broken(
    rules=("learning-rate",), words=("learning rate", "sgd"), nodes=("model.embedding.weight", "model.decoder.weight")
)
def letters_by_plain_sgd(lab: Lab) -> None:
    """A model of letters is trained by SGD at its usual rate, without momentum, which hardly moves it; Adam would.

    Source: DeepFD's benchmark (ICSE 2022), Stack Overflow 41600519, wrong optimizer.
    """
    _, count = data.text()
    model = _Letters(count)
    kind = torch.optim.Adam if lab.fixed else torch.optim.SGD  # set-up bug: letters_by_plain_sgd
    optimizer = kind(model.parameters(), lr=1e-2)
    criterion = nn.CrossEntropyLoss()
    lab.fit(model, data.characters(), lambda x, y: criterion(model(x).transpose(1, 2), y), optimizer)


def _sums(number: int) -> _Batch:
    """Payments and whether each is one in return ``(64, 25, 2)``, and what they add up to ``(64, 1)``."""
    generator = torch.Generator().manual_seed(number)
    payments = torch.rand(64, 25, generator=generator)
    back = (torch.rand(64, 25, generator=generator) < 0.4).float()
    return torch.stack([payments, back], dim=2), (payments * (1 - 2 * back)).sum(1, keepdim=True) / 3


class _Adder(nn.Module):
    """A recurrent layer with ReLU, whose weights are drawn by hand."""

    def __init__(self, spread: float) -> None:
        super().__init__()
        self.rnn = nn.RNN(2, 40, nonlinearity="relu", batch_first=True)
        self.out = nn.Linear(40, 1)
        for name, parameter in self.rnn.named_parameters():
            nn.init.normal_(parameter, std=spread if name == "weight_hh_l0" else 0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.rnn(x)[0][:, -1])


@broken(
    rules=("weight-scale", "exploding-gradient", "growing-state"), words=("initial",),
    nodes=("model.rnn", "model.rnn.weight_hh_l0"),
)  # fmt: skip
def state_grows_at_each_moment(lab: Lab) -> None:
    """Recurrent weights are drawn four times too wide, so that state and gradient grow at each of 25 moments.

    Source: AutoTrainer (ICSE 2021), exploding gradient, by the initial weights.
    """
    model = _Adder(0.2 if lab.fixed else 0.8)  # set-up bug: state_grows_at_each_moment
    lab.fit(model, _sums, lambda x, y: F.mse_loss(model(x), y), lr=3e-3)


def _waves(number: int) -> _Batch:
    """Noisy waves ``(48, 1, 40)``, and whether each is a sine, a square, a saw, or one that fades."""
    generator = torch.Generator().manual_seed(number)
    kind = torch.randint(4, (48,), generator=generator)
    speed, phase = 0.5 + 0.5 * torch.rand(48, 1, generator=generator), 6.3 * torch.rand(48, 1, generator=generator)
    angle = speed * torch.arange(40.0) + phase
    kinds = [
        angle.sin(),
        angle.sin().sign(),
        angle.remainder(6.28) / 3.14 - 1,
        angle.sin() * torch.linspace(1.5, 0, 40),
    ]
    wave = torch.stack(kinds, 1)[torch.arange(48), kind]
    return (wave + 0.1 * torch.randn(48, 40, generator=generator))[:, None], kind


def _all_alike(model: nn.Module) -> None:
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.1)  # set-up bug: every_filter_begins_the_same


@broken(
    rules=("weight-scale",), words=("constant", "alike", "initial"),
    nodes=("model.0.weight", "model.3.weight", "model.7.weight"),
)  # fmt: skip
def every_filter_begins_the_same(lab: Lab) -> None:
    """All weights begin as 0.1, so that the filters of a layer are alike and remain so.

    Source: NeuraLint (TOSEM 2021), constant initialisation of weights.
    """
    model = nn.Sequential(
        nn.Conv1d(1, 16, 5), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(16, 24, 5), nn.ReLU(), nn.AdaptiveAvgPool1d(4),
        nn.Flatten(), nn.Linear(96, 4),
    )  # fmt: skip
    if not lab.fixed:
        _all_alike(model)
    lab.fit(model, _waves, lambda x, y: F.cross_entropy(model(x), y), lr=5e-3)


def _drifts(batch: int) -> Batches:
    """Ten moments of five sensors ``(batch, 10, 5)``, and which of them drifts upwards."""

    def batches(number: int) -> _Batch:
        generator = torch.Generator().manual_seed(number)
        which = torch.randint(5, (batch,), generator=generator)
        drift = F.one_hot(which, 5)[:, None] * torch.linspace(0, 1.6, 10)[:, None]
        return drift + torch.randn(batch, 10, 5, generator=generator), which

    return batches


class _Attentive(nn.Module):
    """A transformer that classifies by what its moments hold on average."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 32)
        self.place = nn.Parameter(0.1 * torch.randn(10, 32))
        self.encoder = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True, norm_first=True)
        self.head = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embed(x) + self.place).mean(1))


@broken(
    rules=("tiny-batch",), words=("batch size", "small batch", "few samples", "samples a batch"),
    nodes=("input", "target", "loss"),
)  # fmt: skip
def two_samples_a_batch(lab: Lab) -> None:
    """A batch has two samples where the learning rate was chosen for 48: the loss goes up and down and learns little.

    Source: AutoTrainer (ICSE 2021), oscillating loss, by the batch size.
    """
    model = _Attentive()
    batches = _drifts(48 if lab.fixed else 2)  # set-up bug: two_samples_a_batch
    unseen = _drifts(200)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9)
    after = lab.validating(model, lambda number: unseen(5000 + number), lambda x, y: F.cross_entropy(model(x), y))
    lab.fit(model, batches, lambda x, y: F.cross_entropy(model(x), y), optimizer, after=after)


class _RowReader(nn.Module):
    """Reads a digit row by row, and gives the chances of the classes."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.GRU(8, 48, batch_first=True)
        self.logits = nn.Linear(48, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, last = self.rows(x[:, 0])
        return F.softmax(self.logits(last[0]), dim=1)


def _digit_loss(chances: torch.Tensor, y: torch.Tensor, *, entropy: bool) -> torch.Tensor:
    if entropy:
        return F.nll_loss(chances.clamp(min=1e-7).log(), y)
    return F.mse_loss(chances, F.one_hot(y, 10).float())  # bug: squared_error_of_chances


@broken(words=("squared error", "mse", "cross entropy", "cross-entropy"), nodes=("loss",))
def squared_error_of_chances(lab: Lab) -> None:
    """Digits are told by the squared error of a softmax, whose gradients are so small that the loss does not fall.

    Source: DeepDiagnosis (ICSE 2022), loss not decreasing, for the wrong loss function.
    """
    model = _RowReader()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    lab.recorder.watch(model, optimizer)
    batches: Batches = data.draw(data.images())
    for number in range(lab.steps):
        x, y = batches(number)
        with lab.recorder.step("train"):
            descend(_digit_loss(model(x), y, entropy=lab.fixed), optimizer)
