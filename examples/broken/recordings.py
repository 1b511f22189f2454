"""Mistakes in nets that read handwriting or sounds and spell what they hear or see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Batches, Lab

_Batch = tuple[torch.Tensor, ...]
_START = 10


def _numbers(number: int, batch: int = 32, digits: int = 3) -> _Batch:
    """Pictures ``(batch, 1, 8, 8 * digits)`` of numbers, and their digits ``(batch, digits)``."""
    images, labels = data.images()
    generator = torch.Generator().manual_seed(number)
    rows = torch.randint(len(labels), (batch, digits), generator=generator)
    return images[rows].permute(0, 2, 3, 1, 4).flatten(3), labels[rows]


def _pairs(number: int) -> _Batch:
    return _numbers(number, 32, 2)


def _validated(lab: Lab, batches: Batches, loss_of: Callable[..., torch.Tensor]) -> Callable[[int], None]:
    return lambda number: lab.validate(lambda number: batches(10_000 + number), loss_of, number)


class _Reader(nn.Module):
    """Convolutions look at a picture, and a transformer writes what stands there."""

    def __init__(self, width: int = 32, *, permuted: bool) -> None:
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(2), nn.Linear(8, width),
        )  # fmt: skip
        layer = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.0)
        encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.transformer = nn.Transformer(width, 4, 1, 1, 64, dropout=0.0, custom_encoder=encoder)
        self.tgt_tok_emb, self.place = nn.Embedding(11, width), nn.Embedding(24, width)
        self.linear = nn.Linear(width, 10)
        nn.init.normal_(self.place.weight, std=0.1)
        self.permuted = permuted

    def forward(self, images: torch.Tensor, tgt: torch.Tensor) -> torch.Tensor:
        seen = self.cnn(images)
        seen = seen.permute(1, 0, 2) if self.permuted else seen.reshape(24, -1, 32)  # bug: pictures_reshaped_to_time
        seen = seen + self.place.weight[:, None]
        given = self.tgt_tok_emb(tgt.t()) + self.place(torch.arange(tgt.shape[1]))[:, None]
        mask = nn.Transformer.generate_square_subsequent_mask(tgt.shape[1])
        return self.linear(self.transformer(seen, given, tgt_mask=mask)).transpose(0, 1)


@broken(
    rules=("batch-leak", "scrambled-input"),
    words=("reshape", "other samples", "permute"),
    nodes=("model", "model.cnn"),
)  # fmt: skip
def pictures_reshaped_to_time(lab: Lab) -> None:
    """What the convolutions found is reshaped from pictures first to time first: each row mixes several pictures.

    Source: PyTorch forum 122218, transformer-based OCR model not learning.
    """
    model = _Reader(permuted=lab.fixed)

    def loss_of(images: torch.Tensor, digits: torch.Tensor) -> torch.Tensor:
        given = F.pad(digits[:, :-1], (1, 0), value=_START)
        return F.cross_entropy(model(images, given).flatten(0, 1), digits.flatten())

    longer = replace(lab, steps=200)
    longer.fit(model, _pairs, loss_of, lr=5e-3, after=_validated(longer, _pairs, loss_of))


class _ConvolvedRows(nn.Module):
    """Convolutions down to one row of columns, two directions of an LSTM, and letters or none at each column."""

    def __init__(self, width: int = 32, *, batch_first: bool) -> None:
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 16, (3, 1), padding=(1, 0)), nn.ReLU(True), nn.MaxPool2d((2, 1)), nn.Conv2d(16, 32, (4, 1)),
            nn.BatchNorm2d(32), nn.ReLU(True),
        )  # fmt: skip
        self.rnn = nn.LSTM(
            32, width, bidirectional=True, batch_first=batch_first
        )  # set-up bug: batch_first_alone_was_changed
        self.embedding = nn.Linear(2 * width, 11)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        columns = self.cnn(images).squeeze(2).permute(2, 0, 1)
        return self.embedding(self.rnn(columns)[0])


@broken(rules=("batch-leak",), words=("batch_first", "other samples"), nodes=("model.rnn",))
def batch_first_alone_was_changed(lab: Lab) -> None:
    """The LSTM of a CRNN was made batch_first, but still gets its columns first: it reads across the pictures.

    Source: PyTorch forum 62364, LSTM change batch_first=True, loss does not decrease.
    """
    model = _ConvolvedRows(batch_first=not lab.fixed)

    def loss_of(images: torch.Tensor, digits: torch.Tensor) -> torch.Tensor:
        found = model(images).log_softmax(2)
        lengths = torch.full((len(digits),), len(found))
        return F.ctc_loss(found, digits + 1, lengths, torch.full((len(digits),), digits.shape[1]))

    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    longer = replace(lab, steps=300)
    longer.fit(model, _numbers, loss_of, optimizer, after=_validated(longer, _numbers, loss_of))


def _spoken(number: int) -> _Batch:
    """Sounds ``(32, 24, 8)`` of six signs each, of which some are blanks between words, and the signs ``(32, 6)``."""
    generator = torch.Generator().manual_seed(number)
    signs = torch.randint(1, 7, (32, 6), generator=generator)
    signs[:, 2::3] = 0
    sound = F.one_hot(signs.repeat_interleave(4, dim=1), 8).float()
    return sound + 0.3 * torch.randn(sound.shape, generator=generator), signs


class _Listener(nn.Module):
    """Two directions of a GRU, and one of eight signs or none at each moment."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.read = nn.GRU(8, width, batch_first=True, bidirectional=True)
        self.ctc_linear = nn.Linear(2 * width, 8)

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        return self.ctc_linear(self.read(sound)[0])


@broken(words=("blank",), nodes=("target", "loss"))
def space_has_the_number_of_blank(lab: Lab) -> None:
    """The space between words has the number 0 among the targets, which the CTC loss takes for its blank.

    Source: yl4579/AuxiliaryASR issue 4, about the loss, which becomes negative.
    """
    model = _Listener()

    def batches(number: int) -> _Batch:
        sound, signs = _spoken(number)
        return sound, signs + 1 if lab.fixed else signs  # set-up bug: space_has_the_number_of_blank

    def loss_of(sound: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
        found = model(sound).log_softmax(2).transpose(0, 1)
        return F.ctc_loss(found, signs, torch.full((32,), len(found)), torch.full((32,), signs.shape[1]))

    lab.fit(model, batches, loss_of, lr=1e-2, after=_validated(lab, batches, loss_of))


class _Speller(nn.Module):
    """Listens, and spells letter by letter; with its teacher's letters all at once."""

    def __init__(self, width: int = 48, *, remembers: bool) -> None:
        super().__init__()
        self.listen = nn.GRU(8, width // 2, batch_first=True, bidirectional=True)
        self.embedding = nn.Embedding(8, width)
        self.rnn = nn.GRU(width, width, batch_first=True)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.place = nn.Parameter(0.3 * torch.randn(24, width))
        self.out = nn.Linear(2 * width, 8)
        self.remembers = remembers

    def step(self, letters: torch.Tensor, hidden: torch.Tensor | None, heard: torch.Tensor) -> _Batch:
        output, hidden = self.rnn(self.embedding(letters), hidden)
        context, _ = self.attention(output, heard, heard, need_weights=False)
        return self.out(torch.cat([output, context], dim=2)), hidden

    def forward(self, sound: torch.Tensor, letters: torch.Tensor, *, taught: bool) -> torch.Tensor:
        heard = self.listen(sound)[0] + self.place
        given = F.pad(letters[:, :-1], (1, 0), value=7)
        if taught:
            return self.step(given, None, heard)[0]
        scores, hidden, letter = [], None, given[:, :1]
        for _ in range(letters.shape[1]):
            score, state = self.step(letter, hidden, heard)
            hidden = state if self.remembers else None  # bug: speller_forgets_at_each_letter
            letter = score.argmax(2)
            scores.append(score)
        return torch.cat(scores, dim=1)


@broken(words=("hidden state", "initial state", "begins anew"), nodes=("model.rnn",))
def speller_forgets_at_each_letter(lab: Lab) -> None:
    """Without its teacher, the speller does not hand its state on: it begins anew at each letter.

    Source: sooftware/kospeech issue 11, gap between training CER and test CER.
    """
    model = _Speller(remembers=lab.fixed)
    coin = torch.Generator().manual_seed(0)

    def loss_of(sound: torch.Tensor, letters: torch.Tensor) -> torch.Tensor:
        taught = model.training and bool(torch.rand(1, generator=coin) < 0.9)
        return F.cross_entropy(model(sound, letters, taught=taught).flatten(0, 1), letters.flatten())

    def after(number: int) -> None:
        model.eval()
        lab.validate(lambda number: _spoken(10_000 + number), loss_of, number)
        model.train()

    lab.fit(model, _spoken, loss_of, lr=5e-3, after=after)
