"""Training runs after official examples and tutorials, in which nothing is wrong."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken import data
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


class _Vae(nn.Module):
    """One hidden layer on either side of eight variables."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc21, self.fc22 = nn.Linear(64, 100), nn.Linear(100, 8), nn.Linear(100, 8)
        self.fc3, self.fc4 = nn.Linear(8, 100), nn.Linear(100, 64)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        hidden = F.relu(self.fc1(x))
        mean, logvar = self.fc21(hidden), self.fc22(hidden)
        code = mean + torch.randn_like(mean) * torch.exp(0.5 * logvar)
        return torch.sigmoid(self.fc4(F.relu(self.fc3(code)))), mean, logvar


def digits_of_a_variational_autoencoder(lab: Lab) -> None:
    """A variational autoencoder with summed losses, after pytorch/examples, vae."""
    x, y = data.pixels()
    ink = (x - x.min()) / (x.max() - x.min())
    model = _Vae()

    def loss_of(ink: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        rebuilt, mean, logvar = model(ink)
        entropy = F.binary_cross_entropy(rebuilt, ink, reduction="sum")
        return entropy - 0.5 * torch.sum(1 + logvar - mean.pow(2) - logvar.exp())

    lab.fit(model, data.draw((ink, y), 128), loss_of, lr=1e-3)


_SYLLABLES = (("ov", "ska", "nik", "ev"), ("ini", "ella", "io", "rca"), ("ster", "man", "burg", "lich"))


def _names(number: int) -> _Batch:
    """Names of three syllables ``(64, 12)`` as letters, padded with 0, and which language each is of."""
    generator = torch.Generator().manual_seed(number)
    language = torch.randint(3, (64,), generator=generator)
    syllables = torch.randint(4, (64, 3), generator=generator)
    names = torch.zeros(64, 12, dtype=torch.long)
    for row in range(64):
        of = _SYLLABLES[int(language[row])]
        name = "".join(of[index] for index in syllables[row].tolist())[:12]
        names[row, : len(name)] = torch.tensor([ord(letter) - 96 for letter in name])
    return names, language


class _CharRnn(nn.Module):
    """Letters as one-hot vectors, a recurrent layer, log-probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(27, 64, batch_first=True)
        self.h2o = nn.Linear(64, 3)
        self.softmax = nn.LogSoftmax(dim=1)

    def forward(self, names: torch.Tensor) -> torch.Tensor:
        _, last = self.rnn(F.one_hot(names, 27).float())
        return self.softmax(self.h2o(last[0]))


def languages_of_names(lab: Lab) -> None:
    """Names are read letter by letter with clipped gradients, after PyTorch's tutorial on character-level RNNs."""
    model = _CharRnn()
    criterion, optimizer = nn.NLLLoss(), torch.optim.SGD(model.parameters(), lr=0.15)
    lab.recorder.watch(model, optimizer)
    for number in range(200):
        names, language = _names(number)
        with lab.recorder.step("train"):
            loss = criterion(model(names), language)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 3)
            optimizer.step()
            optimizer.zero_grad()
        lab.validate(lambda number: _names(6000 + number), lambda x, y: criterion(model(x), y), number)


class _Sequence(nn.Module):
    """Two LSTM cells and a linear layer, moment by moment."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm1, self.lstm2 = nn.LSTMCell(1, 24), nn.LSTMCell(24, 24)
        self.linear = nn.Linear(24, 1)

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        first = second = (wave.new_zeros(len(wave), 24), wave.new_zeros(len(wave), 24))
        outputs = []
        for value in wave.split(1, dim=1):
            first = self.lstm1(value, first)
            second = self.lstm2(first[0], second)
            outputs.append(self.linear(second[0]))
        return torch.cat(outputs, dim=1)


def sine_waves_go_on(lab: Lab) -> None:
    """LSTM cells predict the next value of sine waves, after pytorch/examples, time_sequence_prediction, with Adam."""
    model = _Sequence()

    def batches(number: int) -> _Batch:
        shift = 40 * torch.rand(32, 1, generator=torch.Generator().manual_seed(number))
        wave = ((torch.arange(13.0) + shift) / 2).sin()
        return wave[:, :-1], wave[:, 1:]

    lab.fit(model, batches, lambda wave, following: F.mse_loss(model(wave), following), lr=1e-2)


def rare_frauds_with_class_weights(lab: Lab) -> None:
    """One payment in fifteen is a fraud, and counts more; after Keras' example on imbalanced classification."""
    generator = torch.Generator().manual_seed(4)
    fraud = torch.rand(3000, 1, generator=generator) < 1 / 15
    x = torch.randn(3000, 12, generator=generator) + 1.6 * fraud * torch.linspace(-1, 1, 12)
    train, unseen = TensorDataset(x[:2400], fraud[:2400].float()), (x[2400:], fraud[2400:].float())
    model = nn.Sequential(
        nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 64), nn.ReLU(),
        nn.Dropout(0.3), nn.Linear(64, 1),
    )  # fmt: skip
    criterion = nn.BCEWithLogitsLoss(pos_weight=(~fraud).sum() / fraud.sum())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda _: unseen, lambda x, y: criterion(model(x), y))
    loader = DataLoader(train, batch_size=128, shuffle=True, drop_last=True)
    for epoch in range(9):
        for place, (rows, labels) in enumerate(loader):
            with lab.recorder.step("train"):
                descend(criterion(model(rows), labels), optimizer)
            after(epoch * len(loader) + place)


_GOOD, _BAD = torch.tensor([3, 7, 11, 19]), torch.tensor([2, 5, 13, 17])


def _reviews(number: int) -> _Batch:
    """Reviews of thirty words out of two hundred ``(32, 30)``, and whether the two words that judge are good ones."""
    generator = torch.Generator().manual_seed(number)
    words = torch.randint(20, 200, (32, 30), generator=generator)
    good = torch.randint(2, (32,), generator=generator).bool()
    judged = torch.where(good[:, None], _GOOD, _BAD).gather(1, torch.randint(4, (32, 2), generator=generator))
    places = torch.rand(32, 30, generator=generator).argsort(1)[:, :2]
    return words.scatter(1, places, judged), good.float()


def reviews_by_convolutions(lab: Lab) -> None:
    """Reviews are judged by convolutions over embedded words, after Keras' example on text classification."""
    model = nn.ModuleDict({
        "embedding": nn.Embedding(200, 32), "conv": nn.Conv1d(32, 48, 5, padding=2),
        "head": nn.Sequential(nn.Linear(48, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 1)),
    })  # fmt: skip

    def scores(words: torch.Tensor) -> torch.Tensor:
        embedded = F.dropout(model["embedding"](words), 0.2, model.training).transpose(1, 2)
        return model["head"](F.relu(model["conv"](embedded)).amax(2)).squeeze(1)

    def loss_of(words: torch.Tensor, good: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(scores(words), good)

    after = lab.validating(model, lambda number: _reviews(8000 + number), loss_of)
    lab.fit(model, _reviews, loss_of, torch.optim.Adam(model.parameters(), 3e-3), after=after)


def diabetes_with_a_rate_for_plateaus(lab: Lab) -> None:
    """A regression whose rate falls when the validation stalls, after the documentation of ReduceLROnPlateau."""
    x, y = data.diabetes()
    unseen = x[340:], y[340:]
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=1)
    criterion = nn.HuberLoss()

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return criterion(model(x), y)

    validate = lab.validating(model, lambda _: unseen, loss_of)

    def after(number: int) -> None:
        validate(number)
        if number % 20 == 19:
            model.eval()
            with torch.no_grad():
                schedule.step(loss_of(*unseen))
            model.train()

    replace(lab, steps=240).fit(model, data.draw((x[:340], y[:340]), 32), loss_of, optimizer, after=after)
