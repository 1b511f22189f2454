"""Mistakes in losses, batches and frozen parts, from a practitioner's list of reasons why a net does not work."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import VALIDATE_EVERY, Lab, descend

_Batch = tuple[torch.Tensor, ...]


class _Towers(nn.Module):
    """A vector of a listener and one of a song, whose product says how long it is heard."""

    def __init__(self, listeners: int, songs: int, width: int = 12) -> None:
        super().__init__()
        vectors = nn.Embedding(listeners, width), nn.Embedding(songs, width)
        for table in vectors:
            nn.init.normal_(table.weight, std=0.5)
        self.listener = nn.Sequential(vectors[0], nn.Linear(width, width))
        self.song = nn.Sequential(vectors[1], nn.Linear(width, width))

    def forward(self, listener: torch.Tensor, song: torch.Tensor) -> torch.Tensor:
        return (self.listener(listener) * self.song(song)).sum(1)


def _plays(rows: int, seed: int) -> _Batch:
    """Listeners, songs, and the standardised time for which they were heard."""
    generator = torch.Generator().manual_seed(seed)
    taste = torch.randn(2, 30, 2, generator=torch.Generator().manual_seed(3))
    listener, song = torch.randint(30, (2, rows), generator=generator)
    heard = (taste[0][listener] * taste[1][song]).sum(1) / 2**0.5
    return listener, song, heard + 0.2 * torch.randn(rows, generator=generator)


@broken(
    rules=("short-training",),
    words=("batch size", "large batch", "few updates", "whole data", "few steps"),
    nodes=("input.listener", "input.song", "target", "model"),
)  # fmt: skip
def all_plays_in_one_batch(lab: Lab) -> None:
    """A batch holds all 1,920 plays because they fit into memory: twenty epochs are twenty updates.

    Source: Slav Ivanov, 37 reasons why your neural network is not working (2017), 11: reduce batch size.
    """
    plays = TensorDataset(*_plays(1920, 1))
    size = 320 if lab.fixed else len(plays)
    loader = DataLoader(plays, batch_size=size, shuffle=True)  # set-up bug: all_plays_in_one_batch
    model = _Towers(30, 30)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    lab.recorder.watch(model, optimizer)
    unseen = _plays(800, 2)
    for _ in range(20):
        for listener, song, heard in loader:
            with lab.recorder.step("train"):
                descend(F.mse_loss(model(listener, song), heard), optimizer)
        lab.validate(lambda _: unseen, lambda u, s, h: F.mse_loss(model(u, s), h), VALIDATE_EVERY - 1)


class _Pinball(nn.Module):
    """The loss of quantiles: too low a guess costs ``share``, too high a guess ``1 - share`` of the distance."""

    def __init__(self, shares: tuple[float, ...], *, sign: int) -> None:
        super().__init__()
        self.share = torch.tensor(shares)
        self.sign = sign

    def forward(self, guess: torch.Tensor, sold: torch.Tensor) -> torch.Tensor:
        short = self.sign * (sold - guess)
        return torch.maximum(self.share * short, (self.share - 1) * short).mean()  # bug: quantiles_from_the_other_end


def _interval_score(guess: torch.Tensor, sold: torch.Tensor) -> torch.Tensor:
    """How good an interval of 80 percent is: its width, and ten times what lies outside."""
    low, high = guess[:, :1], guess[:, 2:]
    return (high - low + 10 * (low - sold).clamp(min=0) + 10 * (sold - high).clamp(min=0)).mean()


def _sales(number: int) -> _Batch:
    """Two weeks of sales ``(64, 14, 2)`` with whether there was an offer, and the next day's ``(64, 1)``."""
    generator = torch.Generator().manual_seed(number)
    level = torch.randn(64, 1, generator=generator)
    phase = torch.randint(7, (64, 1), generator=generator)
    offer = (torch.rand(64, 15, generator=generator) < 0.2).float()
    week = (6.283 * (torch.arange(15) + phase) / 7).sin()
    noise = torch.randn(64, 15, generator=generator)
    sold = 0.6 * level + 0.5 * week + 0.8 * offer + (0.2 + 0.3 * (level > 0)) * noise
    return torch.stack([sold[:, :14], offer[:, 1:]], dim=2), sold[:, 14:]


class _Shop(nn.Module):
    """A recurrent layer over two weeks, and three quantiles of the day after."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.GRU(2, 32, batch_first=True), nn.Linear(32, 3)

    def forward(self, days: torch.Tensor) -> torch.Tensor:
        return self.out(self.rnn(days)[0][:, -1])


@broken(words=("sign of the error", "wrong sign", "quantile", "pinball"), nodes=("loss",))
def quantiles_from_the_other_end(lab: Lab) -> None:
    """A pinball loss of one's own has the sign of the error wrong: the tenth percentile is fitted as the ninetieth.

    Source: Slav Ivanov, 37 reasons why your neural network is not working (2017), 18: check your loss function.
    """
    model, criterion = _Shop(), _Pinball((0.1, 0.5, 0.9), sign=1 if lab.fixed else -1)
    optimizer = torch.optim.Adamax(model.parameters(), lr=1e-2)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        days, sold = _sales(number)
        with lab.recorder.step("train"):
            descend(criterion(model(days), sold), optimizer)
        lab.validate(lambda n: _sales(9000 + n), lambda x, y: _interval_score(model(x), y), number)


class _Tagger(nn.Module):
    """Reads a sentence both ways and gives a score to each of five tags of each word."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, 24)
        self.lstm = nn.LSTM(24, 24, batch_first=True, bidirectional=True)
        self.tag = nn.Linear(48, 5)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.tag(self.lstm(self.embed(words))[0]).transpose(1, 2)


def _sentences(number: int) -> _Batch:
    """Sentences of twelve words out of sixty ``(32, 12)``, and their tags, some of which the word before decides."""
    generator = torch.Generator().manual_seed(number)
    words = torch.randint(60, (32, 12), generator=generator)
    tags = torch.randint(5, (60,), generator=torch.Generator().manual_seed(2))[words]
    before = F.pad(words[:, :-1], (1, 0))
    return words, torch.where((words % 3 == 0) & (before % 2 == 0), (tags + 1) % 5, tags)


@broken(
    rules=("activation-before-loss", "unbounded-loss"),
    words=("log_softmax", "log-softmax", "log-probabilities", "nllloss", "nll_loss"),
    nodes=("loss", "model"),
)  # fmt: skip
def likelihood_of_bare_scores(lab: Lab) -> None:
    """A tagger ends with bare scores, but NLLLoss, which wants logarithms of probabilities, was mixed up for another.

    Source: Slav Ivanov, 37 reasons why your neural network is not working (2017), 19: verify loss input.
    """
    model = _Tagger(60)
    criterion: nn.Module = nn.CrossEntropyLoss() if lab.fixed else nn.NLLLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        words, tags = _sentences(number)
        with lab.recorder.step("train"):
            loss = criterion(model(words), tags)  # bug: likelihood_of_bare_scores
            descend(loss, optimizer)
        lab.validate(lambda n: _sentences(9000 + n), lambda x, y: criterion(model(x), y), number)


def _posts(rows: int, seed: int) -> Iterator[_Batch]:
    """Batches of posts of ten words out of four hundred, and which of four subjects each is about."""
    generator = torch.Generator().manual_seed(seed)
    habit = 1.6 * torch.randn(4, 400, generator=torch.Generator().manual_seed(11))
    while True:
        subject = torch.randint(4, (rows,), generator=generator)
        yield torch.multinomial(habit.softmax(1)[subject], 10, replacement=True, generator=generator), subject


class _Reader(nn.Module):
    """Words, a convolution over pairs of them, and a subject."""

    def __init__(self, embed: nn.Embedding) -> None:
        super().__init__()
        self.embed = embed
        self.conv, self.out = nn.Conv1d(embed.embedding_dim, 24, 2), nn.Linear(24, 4)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.out(F.relu(self.conv(self.embed(words).transpose(1, 2))).mean(2))


@broken(
    rules=("frozen-parameters", "untrained-parameters", "unchanged-parameters"),
    words=("frozen", "freeze", "requires_grad", "never train"),
    nodes=("model.embed", "model.embed.weight"),
)  # fmt: skip
def random_vectors_that_were_frozen(lab: Lab) -> None:
    """Words without a published vector get a random one to be learned, but ``from_pretrained`` freezes its table.

    Source: Slav Ivanov, 37 reasons why your neural network is not working (2017), 23: frozen layers or variables.
    """
    table = torch.randn(400, 12, generator=torch.Generator().manual_seed(1))
    frozen = not lab.fixed
    embed = nn.Embedding.from_pretrained(table, freeze=frozen)  # set-up bug: random_vectors_that_were_frozen
    model = _Reader(embed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    lab.recorder.watch(model, optimizer)
    posts = _posts(64, 2)
    unseen = next(_posts(500, 3))
    for number in range(lab.steps):
        words, subject = next(posts)
        with lab.recorder.step("train"):
            descend(F.cross_entropy(model(words), subject), optimizer)
        lab.validate(lambda _: unseen, lambda x, y: F.cross_entropy(model(x), y), number)
