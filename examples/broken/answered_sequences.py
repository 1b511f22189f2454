"""Mistakes in trainings on sequences, as people asked about them and were answered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _sums(number: int) -> _Batch:
    """Eight numbers and marks at two of them ``(64, 8, 2)``, and the sum of those two ``(64, 1)``."""
    generator = torch.Generator().manual_seed(number)
    values = 2 * torch.rand(64, 8, generator=generator) - 1
    marked = torch.rand(64, 8, generator=generator).argsort(1) < 2
    return torch.stack([values, marked.float()], dim=2), (values * marked).sum(1, keepdim=True)


class _Adder(nn.Module):
    """An LSTM that reads all, and a linear layer that says the sum."""

    def __init__(self, width: int = 32, *, batch_first: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2, width, batch_first=batch_first)
        self.fc = nn.Linear(width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(x)
        return self.fc(states[:, -1])


@broken(
    rules=("batch-leak",),
    words=("batch_first", "batch first", "across the batch", "time axis"),
    nodes=("model.lstm", "input"),
)
def sums_read_across_the_batch(lab: Lab) -> None:
    """The LSTM expects the time first and is given the batch first, so that it reads from one example to the next.

    Source: StefOe/indrnn-pytorch 3, can not converge with LSTM (its inputs are time, batch, features).
    """
    model = _Adder(batch_first=lab.fixed)  # set-up bug: sums_read_across_the_batch
    after = lab.validating(model, lambda number: _sums(9000 + number), lambda x, y: F.mse_loss(model(x), y))
    replace(lab, steps=270).fit(model, _sums, lambda x, y: F.mse_loss(model(x), y), lr=1e-2, after=after)


def _heartbeats(count: int) -> _Batch:
    """Series of three sensors ``(n, 20, 3)``, and which of three rhythms each has; noisy."""
    generator = torch.Generator().manual_seed(6)
    rhythm = torch.randint(3, (count,), generator=generator)
    phase = 6.28 * torch.rand(count, 1, generator=generator)
    wave = ((0.5 + 0.35 * rhythm[:, None]) * torch.arange(20.0) + phase).sin()
    return 0.8 * wave[:, :, None] + torch.randn(count, 20, 3, generator=generator), rhythm


class _Reader(nn.Module):
    """An LSTM of two layers over a series."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, width, num_layers=2, batch_first=True)
        self.dense = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dense(self.lstm(x)[0].mean(1))


def _epochs(table: TensorDataset, steps: int) -> Iterator[tuple[int, _Batch]]:
    """Shuffled batches, epoch after epoch."""
    loader, number = DataLoader(table, batch_size=24, shuffle=True, drop_last=True), 0
    while True:
        for batch in loader:
            if number == steps:
                return
            yield number, batch
            number += 1


@broken(
    rules=("overfitting",), words=("overfit", "by heart", "memoris", "memoriz", "too few"), nodes=("model", "input")
)
def forty_eight_series_by_heart(lab: Lab) -> None:
    """Only forty-eight of three thousand series are used to train a large LSTM, which learns them by heart.

    Source: keras-team/keras 1597, acc and val_acc don't change (too large a model for too small a training set).
    """
    x, y = _heartbeats(3300)
    count = 3000 if lab.fixed else 48  # set-up bug: forty_eight_series_by_heart
    unseen = x[3000:], y[3000:]
    model = _Reader(40)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda _: unseen, lambda x, y: F.cross_entropy(model(x), y))
    for number, (rows, rhythm) in _epochs(TensorDataset(x[:count], y[:count]), 240):
        with lab.recorder.step("train"):
            loss = F.cross_entropy(model(rows), rhythm)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        after(number)


class _Places(nn.Module):
    """Adds to each frame the waves that tell where it is."""

    def __init__(self, width: int, *, constant: bool) -> None:
        super().__init__()
        self.constant = constant
        angle = torch.arange(40.0)[:, None] / 50 ** (torch.arange(0, width, 2) / width)
        self.pe = torch.cat([angle.sin(), angle.cos()], dim=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.constant):
            return x + 0.3 * self.pe[: x.shape[1]]  # bug: no_gradient_before_the_places


class _Recogniser(nn.Module):
    """Two strided convolutions over sound, places, a block of a transformer."""

    def __init__(self, width: int = 32, *, constant: bool) -> None:
        super().__init__()
        self.front = nn.Sequential(
            nn.Conv1d(40, width, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv1d(width, width, 3, stride=2, padding=1),
        )  # fmt: skip
        self.places = _Places(width, constant=constant)
        self.block = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True, norm_first=True)
        self.ctc = nn.Linear(width, 12)

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        return self.ctc(self.block(self.places(self.front(sound).transpose(1, 2))))


def _sound(number: int) -> _Batch:
    """Filter banks ``(16, 40, 48)`` of twelve phones in a row, four frames each, in noise, and the phones."""
    generator = torch.Generator().manual_seed(number)
    voice = torch.randn(12, 40, generator=torch.Generator().manual_seed(1))
    phones = torch.randint(12, (16, 12), generator=generator)
    frames = 0.5 * voice[phones].repeat_interleave(4, dim=1)
    return (frames + torch.randn(frames.shape, generator=generator)).transpose(1, 2), phones


@broken(
    rules=("gradient-cut", "no-gradient"),
    words=("no_grad", "detach", "cut off", "never trained", "not trained"),
    nodes=("model.front", "model.front.0.weight", "model.front.2.weight", "model.places"),
)
def no_gradient_before_the_places(lab: Lab) -> None:
    """The positional encoding runs without gradients, so that the convolutions before it stay as they were drawn.

    Source: espnet/espnet 465, transformer, no backprop before the positional encoding (removed ``no_grad``).
    """
    model = _Recogniser(constant=not lab.fixed)

    def loss_of(sound: torch.Tensor, phones: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(sound).flatten(0, 1), phones.flatten())

    after = lab.validating(model, lambda number: _sound(9000 + number), loss_of)
    lab.fit(model, _sound, loss_of, torch.optim.Adam(model.parameters(), lr=2e-3), after=after)


class _Sentences(nn.Module):
    """A GRU over embedded words, and whether what they say is true."""

    def __init__(self, *, learned: bool) -> None:
        super().__init__()
        self.words = nn.Embedding(300, 12)
        self.words.weight.requires_grad_(learned)  # set-up bug: words_stay_as_drawn
        self.read = nn.GRU(12, 24, batch_first=True)
        self.say = nn.Linear(24, 1)

    def forward(self, sentence: torch.Tensor) -> torch.Tensor:
        return self.say(self.read(self.words(sentence))[0].mean(1))[:, 0]


def _statements(number: int) -> _Batch:
    """Sentences of eight of three hundred words ``(64, 8)``, and whether most of their words mean well."""
    generator = torch.Generator().manual_seed(number)
    meaning = torch.randn(300, generator=torch.Generator().manual_seed(2)).sign()
    sentence = torch.randint(300, (64, 8), generator=generator)
    return sentence, (meaning[sentence].sum(1) > 0).float()


@broken(
    rules=("frozen-parameters",),
    words=("frozen", "requires_grad", "not trained", "never trained"),
    nodes=("model.words", "model.words.weight"),
)
def words_stay_as_drawn(lab: Lab) -> None:
    """The embedding of the words was drawn at random and is not learned, though nothing else tells what they mean.

    Source: udiNaveh/nlvr_tau_nlp_final_proj 51, enable word embeddings learning.
    """
    model = _Sentences(learned=lab.fixed)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)

    def loss_of(sentence: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(model(sentence), true)

    after = lab.validating(model, lambda number: _statements(9000 + number), loss_of)
    replace(lab, steps=210).fit(model, _statements, loss_of, optimizer, after=after)


class _Speaker(nn.Module):
    """Letters, an encoder, attention, and a decoder that is fed the frame before."""

    def __init__(self, letters: int, width: int = 32, bands: int = 16) -> None:
        super().__init__()
        self.embed, self.encoder = nn.Embedding(letters, width), nn.GRU(width, width, batch_first=True)
        self.prenet, self.decoder = nn.Linear(bands, width), nn.GRU(width, width, batch_first=True)
        self.attend = nn.MultiheadAttention(width, 1, batch_first=True)
        self.place = nn.Embedding(24, width)
        self.mel = nn.Linear(2 * width, bands)

    def forward(self, text: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        known = self.encoder(self.embed(text))[0] + self.place(2 * torch.arange(12))
        said = self.decoder(F.relu(self.prenet(before)))[0] + self.place(torch.arange(24))
        heard, _ = self.attend(said, known, known)
        return self.mel(torch.cat([said, heard], dim=2))


def _spoken(number: int) -> _Batch:
    """Twelve letters of a text ``(24, 12)``, the frames of their sound up to each, and the frames ``(24, 24, 16)``."""
    text, _ = data.characters(24, 12)(number)
    voice = torch.randn(300, 16, generator=torch.Generator().manual_seed(3))
    frames = voice[text].repeat_interleave(2, dim=1)
    return text, F.pad(frames, (0, 0, 1, -1)), frames


@broken(
    rules=("learning-rate",),
    words=("learning rate",),
    nodes=("model", "model.mel.weight", "model.decoder.weight_ih_l0"),
)
def speaker_at_too_high_a_rate(lab: Lab) -> None:
    """A network that reads aloud is trained with Adam at a learning rate thirty times too high.

    Source: barronalex/Tacotron 7, loss exploded (the learning rate was decreased, and the training restored).
    """
    _, letters = data.text()
    model = _Speaker(letters)
    rate = 4e-3 if lab.fixed else 0.12
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)  # set-up bug: speaker_at_too_high_a_rate

    def loss_of(text: torch.Tensor, before: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        return F.l1_loss(model(text, before), frames)

    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda number: _spoken(9000 + number), loss_of)
    for number in range(180):
        batch = _spoken(number)
        with lab.recorder.step("train"):
            descend(loss_of(*batch), optimizer)
        after(number)
