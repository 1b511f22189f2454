"""Mistakes in preparing data, in the order in which a lecture on troubleshooting tells them."""

from __future__ import annotations

import random
from functools import lru_cache
from pydoc_data.topics import topics

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _barometer(number: int) -> _Batch:
    """Pressure in hectopascal and temperature in kelvin ``(48, 24, 2)`` of a day, and whether the pressure falls."""
    generator = torch.Generator().manual_seed(number)
    drift = 0.6 * torch.randn(48, 1, generator=generator) + 0.8 * torch.randn(48, 24, generator=generator)
    pressure = 1013 + 9 * torch.randn(48, 1, generator=generator) + drift.cumsum(1)
    warm = 285 + 6 * torch.randn(48, 1, generator=generator) + torch.randn(48, 24, generator=generator)
    falls = pressure[:, -1] < pressure[:, -13]
    return torch.stack([pressure, warm], dim=2), falls.float()


class _StormWarning(nn.Module):
    """An LSTM over the hours, and one score."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(2, 32, batch_first=True), nn.Linear(32, 1)

    def forward(self, hours: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(hours)
        return self.head(states[:, -1]).squeeze(1)


@broken(rules=("input-scale",), words=("standardi", "normali", "scale of the input", "unscaled"), nodes=("input",))
def storms_from_hectopascals(lab: Lab) -> None:
    """Pressure in hectopascal, about 1013, and kelvins go into an LSTM as they are, and drive its gates to their ends.

    Source: Tobin, Troubleshooting Deep Neural Networks, most common bugs, 2: forgetting to normalize the inputs.
    """
    model = _StormWarning()
    mean, spread = torch.tensor([1013.0, 285.0]), torch.tensor([10.0, 6.0])

    def batches(number: int) -> _Batch:
        hours, falls = _barometer(number)
        return (hours - mean) / spread if lab.fixed else hours, falls  # set-up bug: storms_from_hectopascals

    def loss_of(hours: torch.Tensor, falls: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(model(hours), falls)

    after = lab.validating(model, lambda number: batches(70_000 + number), loss_of)
    lab.fit(model, batches, loss_of, torch.optim.Adam(model.parameters(), lr=1e-2), after=after)


_BANDS, _FRAMES = 24, 32


def _calls(number: int) -> _Batch:
    """Standardised spectrograms ``(40, 1, 24, 32)`` of five kinds of calls, and the kind."""
    generator = torch.Generator().manual_seed(number)
    kind = torch.randint(5, (40,), generator=generator)
    time = torch.linspace(-1, 1, _FRAMES)
    shapes = torch.stack([time, -time, 2 * time.square() - 1, 1 - 2 * time.square(), (6.2832 * time).sin()])
    middle = 11.5 + 2 * torch.randn(40, 1, generator=generator)
    pitch = middle + 7 * shapes[kind] * (0.8 + 0.4 * torch.rand(40, 1, generator=generator))
    energy = (-(torch.arange(float(_BANDS))[:, None] - pitch[:, None]).square() / 2).exp()
    loud = 3.5 * energy + 0.8 * torch.randn(40, _BANDS, _FRAMES, generator=generator)
    return ((loud - 0.35) / 1.1)[:, None], kind


def _mask(calls: torch.Tensor, share: float, number: int) -> torch.Tensor:
    """Two stripes of bands and two of frames set to zero in each call; each is as wide as ``share`` at most."""
    generator = torch.Generator().manual_seed(number)
    hidden = torch.zeros_like(calls, dtype=torch.bool)
    for dim, size in ((2, _BANDS), (3, _FRAMES)):
        places = torch.arange(size)
        for _ in range(2):
            wide = share * size * (0.5 + 0.5 * torch.rand(len(calls), 1, generator=generator))
            start = (size - wide) * torch.rand(len(calls), 1, generator=generator)
            stripe = (places >= start) & (places < start + wide)
            hidden |= stripe.view(len(calls), 1, *((size, 1) if dim == 2 else (1, size)))
    return calls.masked_fill(hidden, 0.0)


@broken(words=("augment", "masked", "hides", "hidden by"), nodes=("input",))
def calls_behind_wide_stripes(lab: Lab) -> None:
    """The augmentation hides stripes of up to nine tenths of all bands and frames, so that hardly any call is left.

    Source: Tobin, Troubleshooting Deep Neural Networks, most common bugs, 2: too much pre-processing.
    """
    share = 0.15 if lab.fixed else 0.9  # set-up bug: calls_behind_wide_stripes
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.GroupNorm(3, 12), nn.SiLU(), nn.AvgPool2d(2),
        nn.Conv2d(12, 24, 3, padding=1), nn.GroupNorm(4, 24), nn.SiLU(), nn.AdaptiveAvgPool2d((3, 4)),
        nn.Flatten(), nn.Linear(288, 5),
    )  # fmt: skip

    def batches(number: int) -> _Batch:
        calls, kind = _calls(number)
        return _mask(calls, share, number), kind

    def loss_of(calls: torch.Tensor, kind: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(calls), kind, label_smoothing=0.02)

    after = lab.validating(model, lambda number: _calls(70_000 + number), loss_of)
    lab.fit(model, batches, loss_of, torch.optim.AdamW(model.parameters(), 2e-3), after=after)


_TOPICS = ("formatstrings", "specialnames", "typesmapping", "import")
_Line = tuple[list[str], list[int]]


@lru_cache
def _excerpts() -> tuple[_Line, _Line]:
    """Excerpts of ninety letters and the number of the topic that each is of; each fifth paragraph is kept apart."""
    train: _Line = ([], [])
    unseen: _Line = ([], [])
    for number, topic in enumerate(_TOPICS):
        text = topics[topic].lower()
        for start in range(0, len(text) - 90, 45):
            texts, numbers = unseen if start // 450 % 5 == 4 else train
            if start % 450 <= 360:
                texts.append(text[start : start + 90])
                numbers.append(number)
    order = torch.randperm(len(train[0]), generator=torch.Generator().manual_seed(4)).tolist()
    return ([train[0][i] for i in order], [train[1][i] for i in order]), unseen


def _hashed(texts: list[str]) -> torch.Tensor:
    """Three letters each as one of 1024 numbers ``(n, 88)``."""
    letters = torch.tensor([list(text.encode("ascii", "replace")) for text in texts])
    return (letters[:, :-2] * 961 + letters[:, 1:-1] * 31 + letters[:, 2:]) % 1024


class _BagOfTrigrams(nn.Module):
    """The mean of what each three letters mean."""

    def __init__(self) -> None:
        super().__init__()
        self.bag, self.fc = nn.EmbeddingBag(1024, 32), nn.Linear(32, 4)
        nn.init.normal_(self.bag.weight, std=0.3)

    def forward(self, trigrams: torch.Tensor) -> torch.Tensor:
        return self.fc(self.bag(trigrams))


@broken(
    rules=("unrelated-targets",),
    words=("shuffl", "mislabel", "labels no longer", "wrong labels"),
    nodes=("target", "input"),
    onset=27,
)  # fmt: skip
def excerpts_shuffled_without_their_topics(lab: Lab) -> None:
    """Before each epoch but the first the list of texts is shuffled, and that of their topics stays as it is.

    Source: Tobin, Troubleshooting Deep Neural Networks, overfit a batch, error oscillates: data incorrectly shuffled.
    """
    (texts, about), (later, later_about) = _excerpts()
    texts, about = list(texts), list(about)
    unseen = _hashed(later), torch.tensor(later_about)
    model = _BagOfTrigrams()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.1)
    lab.recorder.watch(model, optimizer)

    def loss_of(trigrams: torch.Tensor, topic: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(trigrams), topic)

    after = lab.validating(model, lambda _: unseen, loss_of)
    dice = random.Random(3)
    number = 0
    for epoch in range(6):
        if epoch and lab.fixed:
            pairs = list(zip(texts, about, strict=True))
            dice.shuffle(pairs)
            texts, about = [text for text, _ in pairs], [topic for _, topic in pairs]
        elif epoch:
            dice.shuffle(texts)  # set-up bug: excerpts_shuffled_without_their_topics
        for start in range(0, len(texts) - 63, 64):
            batch = _hashed(texts[start : start + 64]), torch.tensor(about[start : start + 64])
            with lab.recorder.step("train"):
                descend(loss_of(*batch), optimizer)
            after(number)
            number += 1


def _beats(number: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Heartbeats of 28, 34 or 40 moments, and whether each is normal, broad, or without its first wave."""
    generator = torch.Generator().manual_seed(number)
    kind = torch.randint(3, (48,), generator=generator)
    beats = []
    for sort in kind.tolist():
        length = int(torch.randint(3, (1,), generator=generator)) * 6 + 28
        moments = torch.arange(float(length)) - torch.randint(12, 16, (1,), generator=generator)
        spike = 3 * (-moments.square() / (8 if sort == 1 else 2)).exp()
        first = (0 if sort == 2 else 1) * (-(moments + 7).square() / 4).exp()
        last = 0.8 * (-(moments - 9).square() / 8).exp()
        beats.append(spike + first + last + 0.2 * torch.randn(length, generator=generator))
    return beats, kind


def _padded(beats: list[torch.Tensor], *, in_place: bool) -> torch.Tensor:
    """Beats of the same length are put into a batch at once; the rest of each row is zero."""
    batch = torch.zeros(len(beats), 1, 40)
    lengths = torch.tensor([len(beat) for beat in beats])
    for length in lengths.unique().tolist():
        rows = (lengths == length).nonzero()[:, 0]
        together = torch.stack([beats[row] for row in rows.tolist()])
        if in_place:
            batch[rows, 0, :length] = together
        else:
            batch[rows, 0][:, :length] = together  # set-up bug: beats_written_into_a_copy
    return batch


@broken(
    rules=("constant-data",),
    words=("all zero", "zeros", "constant input", "is constant"),
    nodes=("input",),
)  # fmt: skip
def beats_written_into_a_copy(lab: Lab) -> None:
    """The collate function writes heartbeats into ``batch[rows, 0]``, a copy, and returns a batch that is all zeros.

    Source: Tobin, Troubleshooting Deep Neural Networks, overfit a batch, error plateaus: data corrupted, zeroed.
    """
    model = nn.Sequential(
        nn.Conv1d(1, 16, 7, padding=3), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(16, 24, 5, padding=2), nn.ReLU(),
        nn.AdaptiveMaxPool1d(4), nn.Flatten(), nn.Linear(96, 24), nn.ReLU(), nn.Linear(24, 3),
    )  # fmt: skip

    def batches(number: int) -> _Batch:
        beats, kind = _beats(number)
        return _padded(beats, in_place=lab.fixed), kind

    def loss_of(beats: torch.Tensor, kind: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(beats), kind)

    after = lab.validating(model, lambda number: batches(70_000 + number), loss_of)
    lab.fit(model, batches, loss_of, torch.optim.RMSprop(model.parameters(), lr=1e-3), after=after)
