"""Mistakes that people report from trainings on series, speech and text."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


class _Lstm(nn.Module):
    """Reads cepstral coefficients in both directions, and says the digit from the mean of all moments."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(13, 32, num_layers=2, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(64, 10)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(frames)
        return self.fc(states.mean(1))


@lru_cache
def _voices() -> torch.Tensor:
    """How each digit sounds: eight places of thirteen coefficients ``(10, 8, 13)``."""
    return torch.randn(10, 8, 13, generator=torch.Generator().manual_seed(3))


def _spoken(number: int) -> _Batch:
    """Thirteen coefficients at twenty moments ``(32, 20, 13)`` of spoken digits, some spoken faster, and which."""
    generator = torch.Generator().manual_seed(number)
    digit = torch.randint(10, (32,), generator=generator)
    speed = 0.25 + 0.1 * torch.rand(32, 1, generator=generator)
    places = (speed * torch.arange(20.0)).long().clamp(max=7)
    frames = _voices()[digit[:, None], places]
    return frames + 1.5 * torch.randn(frames.shape, generator=generator), digit


@broken(rules=("learning-rate",), words=("learning rate", "step size"), nodes=("model.lstm", "model.fc.weight"))
def digits_of_a_hasty_lstm(lab: Lab) -> None:
    """A bidirectional LSTM for spoken digits is trained by Adam with a learning rate of 0.3, and learns little.

    Source: slp-ntua/patrec-labs 79, the accuracy stays below 3%, a smaller learning rate helped.
    """
    model = _Lstm()
    rate = 5e-3 if lab.fixed else 0.3  # set-up bug: digits_of_a_hasty_lstm

    def loss_of(frames: torch.Tensor, digit: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(frames), digit)

    after = lab.validating(model, lambda number: _spoken(9000 + number), loss_of)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    replace(lab, steps=120).fit(model, _spoken, loss_of, optimizer, after=after)


class _CharRnn(nn.Module):
    """A recurrent cell that is called letter by letter."""

    def __init__(self, letters: int, width: int = 96) -> None:
        super().__init__()
        self.width = width
        self.embed = nn.Embedding(letters, 32)
        self.cell = nn.GRUCell(32, width)
        self.head = nn.Linear(width, letters)

    def forward(self, letter: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        state = self.cell(self.embed(letter), state)
        return self.head(state), state


@broken(words=("last step", "last letter", "last moment", "overwrit"), nodes=("loss", "model.head"))
def letters_judged_at_the_end_only(lab: Lab) -> None:
    """The loss is overwritten at each letter where it should be added up: only the last of twelve is learned from.

    Source: learn.biosrag.com/ai/rnn-training-2, a BPTT bug that only backpropagated through the last time step.
    """
    letters, kinds = data.text()
    model = _CharRnn(kinds)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=3e-3)
    batches = data.characters(4, 12)
    unseen = letters[-13 * 150 :].view(150, 13)
    lab.recorder.watch(model, optimizer)

    def read(text: torch.Tensor, following: torch.Tensor, *, every: bool) -> torch.Tensor:
        state = torch.zeros(len(text), model.width)
        loss = torch.zeros(())
        for place in range(text.shape[1]):
            scores, state = model(text[:, place], state)
            here = F.cross_entropy(scores, following[:, place])
            loss = loss + here / text.shape[1] if every else here  # bug: letters_judged_at_the_end_only
        return loss

    for number in range(120):
        with lab.recorder.step("train"):
            loss = read(*batches(number), every=lab.fixed)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
        lab.validate(lambda _: (unseen[:, :-1], unseen[:, 1:]), lambda x, y: read(x, y, every=True), number)


class _Reader(nn.Module):
    """A recurrent layer over the pieces of a passage, which knows what is asked for; scores of where it stands."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.pieces, self.asked = nn.Embedding(181, width, padding_idx=180), nn.Embedding(3, width)
        self.gru = nn.GRU(width, width, bidirectional=True, batch_first=True)
        self.ends = nn.Linear(2 * width, 2)

    def forward(self, passage: torch.Tensor, asked: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        states, _ = self.gru(self.pieces(passage) + self.asked(asked)[:, None])
        scores = self.ends(states).masked_fill((passage == 180)[:, :, None], -1e4)
        return scores[:, :, 0], scores[:, :, 1]


def _passages(number: int, *, in_pieces: bool) -> _Batch:
    """Ten words in pieces ``(32, 30)``, what is asked for (who, when, where), and where the answer begins and ends."""
    generator = torch.Generator().manual_seed(number)
    passages, asked = torch.full((32, 30), 180), torch.randint(3, (32,), generator=generator)
    begins, ends = torch.zeros(2, 32, dtype=torch.long)
    for row in range(32):
        words = torch.arange(3) * 10 + torch.randint(10, (3,), generator=generator)
        words = torch.cat([words, 30 + torch.randint(30, (7,), generator=generator)])
        words = words[torch.randperm(10, generator=generator)]
        at = 0
        for place, word in enumerate(words.tolist()):
            length = 1 + word % 3
            passages[row, at : at + length] = 3 * word + torch.arange(length)
            if word // 10 == asked[row]:
                span = (at, at + length - 1) if in_pieces else (place, place)
                begins[row], ends[row] = span
            at += length
    return passages, asked, begins, ends


@broken(
    rules=("shifted-labels", "unrelated-targets"),
    words=("subword", "pieces", "misaligned", "alignment", "offset"),
    nodes=("target", "target 2"),
)
def answers_counted_in_words(lab: Lab) -> None:
    """Where an answer begins and ends is counted in words, and the passage goes in as pieces of words: spans are off.

    Source: thecodeforge.io, Question Answering Transformers: Last Chars Bug (spans misaligned by pieces of words).
    """
    model = _Reader()

    def batches(number: int) -> _Batch:
        return _passages(number, in_pieces=lab.fixed)  # set-up bug: answers_counted_in_words

    def loss_of(passage: torch.Tensor, asked: torch.Tensor, begins: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        first, last = model(passage, asked)
        return (F.cross_entropy(first, begins) + F.cross_entropy(last, ends)) / 2

    after = lab.validating(model, lambda number: _passages(9000 + number, in_pieces=True), loss_of)
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3)
    replace(lab, steps=90).fit(model, batches, loss_of, optimizer, after=after)


def _commands(number: int) -> _Batch:
    """Spectrograms ``(32, 1, 24, 32)`` of six commands, chirps of two tones each, and which they are."""
    generator = torch.Generator().manual_seed(number)
    command = torch.randint(6, (32,), generator=generator)
    low = torch.tensor([0.1, 0.5, 0.2, 0.2, 0.6, 0.3])[command][:, None]
    slope = torch.tensor([0.8, -0.8, 0.0, 0.5, -0.5, 1.0])[command][:, None]
    time = torch.linspace(0, 1, 1600)
    pitch = 0.12 + 0.1 * torch.rand(32, 1, generator=generator) + 0.3 * low
    phase = 1000 * (pitch * time + 0.12 * slope * time**2)
    wave = phase.sin() + 0.5 * (1.5 * phase).sin() + 0.6 * torch.randn(32, 1600, generator=generator)
    power = torch.stft(wave, 64, 50, window=torch.hann_window(64), center=False, return_complex=True).abs() ** 2
    image = (power[:, :24, :32] + 1e-3).log()
    return ((image - 1.5) / 1.7)[:, None], command


class _Kws(nn.Module):
    """Two convolutions and two layers, with dropout between them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 5, padding=2), nn.Conv2d(8, 16, 3, padding=1)
        self.fc1, self.fc2 = nn.Linear(16 * 6 * 7, 48), nn.Linear(48, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.dropout(F.relu(self.fc1(x.flatten(1))), 0.2, self.training))


@broken(
    rules=("learning-rate",),
    words=("learning rate", "step size"),
    nodes=("model.conv1", "model.conv2", "model.fc1", "model.fc2"),
)
def commands_at_too_high_a_rate(lab: Lab) -> None:
    """A small network for spoken commands is trained by Adam at a learning rate of 0.05, at which it learns little.

    Source: JaesungBae/Speech-Command-Recognition-with-Capsule-Network 2, "it's the learning rate".
    """
    model = _Kws()
    optimizer = torch.optim.Adam(
        model.parameters(),
        lr=3e-3 if lab.fixed else 0.05,  # set-up bug: commands_at_too_high_a_rate
    )
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.9)
    lab.recorder.watch(model, optimizer)
    for epoch in range(5):
        for number in range(30 * epoch, 30 * epoch + 30):
            image, command = _commands(number)
            with lab.recorder.step("train"):
                descend(F.cross_entropy(model(image), command), optimizer)
        scheduler.step()
        model.eval()
        lab.validate(lambda _: _commands(9000), lambda x, y: F.cross_entropy(model(x), y), 29)
        model.train()


def _notes(number: int) -> list[torch.Tensor]:
    """Eight small batches: one has four long texts ``(4, 60)``, the others four codes of two letters ``(4, 3)``."""
    letters, kinds = data.text()
    generator = torch.Generator().manual_seed(number)
    start = torch.randint(150_000, (4, 1), generator=generator)
    codes = [torch.randint(kinds, (4, 3), generator=generator) for _ in range(7)]
    return [letters[start + torch.arange(60)], *codes]


@broken(words=("token", "length", "mean of means", "micro-batch"), nodes=("loss",))
def short_notes_weigh_like_long_texts(lab: Lab) -> None:
    """Each accumulated batch gives the mean over its own letters, so that two letters of a code weigh like a long text.

    Source: huggingface/transformers 24725, gradient accumulation averages the means of batches of unequal length.
    """
    letters, kinds = data.text()
    model = nn.ModuleDict(
        {"embed": nn.Embedding(kinds, 32), "gru": nn.GRU(32, 96, batch_first=True), "head": nn.Linear(96, kinds)}
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.7, momentum=0.9)
    unseen = letters[-60 * 40 :].view(40, 60)
    lab.recorder.watch(model, optimizer)

    def loss_of(text: torch.Tensor, reduction: str) -> torch.Tensor:
        scores = model["head"](model["gru"](model["embed"](text[:, :-1]))[0])
        return F.cross_entropy(scores.flatten(0, 1), text[:, 1:].flatten(), reduction=reduction)

    for number in range(120):
        parts = _notes(number)
        count = sum(part[:, 1:].numel() for part in parts)
        reduction, share = ("sum", 1 / count) if lab.fixed else ("mean", 1 / len(parts))
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            for part in parts:
                loss = share * loss_of(part, reduction)  # bug: short_notes_weigh_like_long_texts
                loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        lab.validate(lambda _: (unseen,), lambda text: loss_of(text, "mean"), number)
