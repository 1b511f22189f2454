"""Mistakes in networks that read words, weather, gestures and visits, as dice drew them from collections."""

from __future__ import annotations

from itertools import islice

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _sentences(count: int, seed: int) -> torch.Tensor:
    """Sentences of an invented language ``(count, 13)``: subject, verb and object, twice, that have to agree.

    Of the 31 words 0 begins; 1-12 are nouns of three genders, 13-21 verbs, three for each gender, 22-30 adjectives.
    """
    generator = torch.Generator().manual_seed(seed)
    words = [torch.zeros(count, dtype=torch.long)]
    for _ in range(2):
        for _ in range(2):
            noun = torch.randint(12, (count,), generator=generator)
            kind = 3 * (noun % 3) + (torch.rand(count, generator=generator) < 0.3).long()
            words += [22 + kind, 1 + noun, 13 + kind]
    return torch.stack(words, dim=1)


class _Writer(nn.Module):
    """Two blocks of a transformer that only looks back."""

    def __init__(self, words: int = 31, width: int = 48, length: int = 12) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(length, width)
        block = nn.TransformerEncoderLayer(width, 4, 96, 0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, 2, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, words)
        self.register_buffer("ahead", nn.Transformer.generate_square_subsequent_mask(length))

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        x = self.words(text) + self.places(torch.arange(text.shape[1]))
        return self.head(self.blocks(x, mask=self.ahead))


@broken(
    rules=("short-training",),
    words=("epoch", "too few", "too short", "too soon", "too early", "still falling"),
    nodes=("loss", "model"),
)
def writer_sent_to_work_after_an_epoch(lab: Lab) -> None:
    """The language model is trained for a single epoch, and stopped while it still learns fast.

    Source: DeepFD (ICSE 2022), programs of Stack Overflow: wrong number of epochs.
    """
    train, unseen = _sentences(1280, 1), _sentences(256, 2)
    model = _Writer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    lab.recorder.watch(model, optimizer)
    epochs = 7 if lab.fixed else 1  # set-up bug: writer_sent_to_work_after_an_epoch
    number = 0
    for _ in range(epochs):
        for (text,) in DataLoader(TensorDataset(train), 64, shuffle=True):
            with lab.recorder.step("train"):
                scores = model(text[:, :-1])
                descend(F.cross_entropy(scores.flatten(0, 1), text[:, 1:].flatten()), optimizer)
            number += 1
            if number % 20 == 0:
                model.eval()
                with torch.no_grad(), lab.recorder.step("validation") as step:
                    scores = model(unseen[:, :-1])
                    loss = F.cross_entropy(scores.flatten(0, 1), unseen[:, 1:].flatten())
                    step.record("loss", loss, type="loss")
                model.train()


def _weather(number: int) -> _Batch:
    """Eighteen hours of pressure, wind and damp ``(64, 18, 3)``, and whether it will be fair, cloudy, wet or stormy."""
    generator = torch.Generator().manual_seed(number)
    front = torch.randn(64, 1, generator=generator)
    fall = torch.randn(64, 1, generator=generator)
    hours = torch.linspace(-1, 1, 18)
    pressure = front - fall * hours
    damp = 0.7 * fall - 0.5 * front * hours
    wind = fall.abs() + 0.4 * (3 * hours).sin()
    sky = torch.stack([pressure, wind, damp], dim=2) + 0.3 * torch.randn(64, 18, 3, generator=generator)
    outlook = torch.bucketize((fall - 0.7 * front)[:, 0], torch.tensor([-1.2, 0.0, 1.2]))
    return sky, outlook


class _Outlook(nn.Module):
    """A recurrent layer over the hours, and the log-probabilities of what comes."""

    def __init__(self, *, softmax: bool) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(3, 32, batch_first=True), nn.Linear(32, 4)
        self.softmax = softmax

    def forward(self, sky: torch.Tensor) -> torch.Tensor:
        scores = self.head(self.gru(sky)[0][:, -1])
        if self.softmax:
            scores = F.log_softmax(scores, dim=1)
        return scores  # bug: outlook_without_probabilities


@broken(rules=("unbounded-loss",), words=("softmax", "logits", "probabilit"), nodes=("model", "model.head", "loss"))
def outlook_without_probabilities(lab: Lab) -> None:
    """The forecaster lacks its last layer, the log-softmax, and ``NLLLoss`` is given scores without bounds.

    Source: Humbatova et al. (ICSE 2020), taxonomy of real faults: missing softmax layer.
    """
    model, criterion = _Outlook(softmax=lab.fixed), nn.NLLLoss()

    def loss_of(sky: torch.Tensor, outlook: torch.Tensor) -> torch.Tensor:
        return criterion(model(sky), outlook)

    after = lab.validating(model, lambda number: _weather(7000 + number), loss_of)
    lab.fit(model, _weather, loss_of, lr=8e-3, after=after)


def _gestures(count: int, seed: int) -> _Batch:
    """What an accelerometer felt ``(count, 20, 2)`` in circles to the left or right, eights, or strokes."""
    generator = torch.Generator().manual_seed(seed)
    kind = torch.randint(4, (count,), generator=generator)
    turns = torch.linspace(0, 6.2832, 20) * (0.8 + 0.5 * torch.rand(count, 1, generator=generator))
    turns = turns + 6.2832 * torch.rand(count, 1, generator=generator)
    across = torch.stack([turns.cos(), turns.cos(), turns.cos(), turns.cos()])
    along = torch.stack([turns.sin(), -turns.sin(), (2 * turns).sin(), 0.5 * turns.cos()])
    rows = torch.arange(count)
    path = torch.stack([across[kind, rows], along[kind, rows]], dim=2)
    return 1.4 * path + 0.4 * torch.randn(count, 20, 2, generator=generator), kind


class _Gesture(nn.Module):
    """An LSTM and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.fc = nn.LSTM(2, 32, batch_first=True), nn.Linear(32, 4)

    def forward(self, path: torch.Tensor) -> torch.Tensor:
        _, (last, _) = self.lstm(path)
        return self.fc(last[-1])


@broken(
    rules=("tiny-batch",),
    words=("batch size", "batch of", "batches of", "one sample", "single sample"),
    nodes=("input", "loss", "model"),
)
def gestures_one_at_a_time(lab: Lab) -> None:
    """The loader was left at a batch size of one, so that each update follows a single gesture and undoes the last.

    Source: AutoTrainer (ICSE 2021), oscillating loss: batch size too small.
    """
    rows = 32 if lab.fixed else 1  # set-up bug: gestures_one_at_a_time
    loader = DataLoader(TensorDataset(*_gestures(5000, 1)), batch_size=rows, shuffle=True)
    model = _Gesture()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=4e-3)
    unseen = _gestures(400, 2)
    lab.recorder.watch(model, optimizer)
    for number, (path, kind) in enumerate(islice(loader, lab.steps)):
        with lab.recorder.step("train"):
            descend(F.cross_entropy(model(path), kind), optimizer)
        lab.validate(lambda _: unseen, lambda path, kind: F.cross_entropy(model(path), kind), number)


_TRIPS = torch.tensor([[1, 2, 3], [3, 2, 1], [4, 2, 5], [5, 4, 6], [6, 1, 4], [2, 6, 5]])


def _visits(number: int) -> _Batch:
    """Fourteen pages that a visitor opened ``(64, 14)``, and which of six things was wanted: three pages in order."""
    generator = torch.Generator().manual_seed(number)
    pages = torch.randint(7, 20, (64, 14), generator=generator)
    wanted = torch.randint(6, (64,), generator=generator)
    moments = torch.rand(64, 14, generator=generator).argsort(1)[:, :3].sort(1).values
    return pages.scatter(1, moments, _TRIPS[wanted]), wanted


class _Visitor(nn.Module):
    """Pages, a recurrent layer, and log-probabilities."""

    def __init__(self, *, relu: bool) -> None:
        super().__init__()
        self.pages = nn.Embedding(20, 24)
        self.lstm = nn.LSTM(24, 48, batch_first=True)
        last = [nn.ReLU()] if relu else []  # set-up bug: wishes_behind_two_activations
        self.out = nn.Sequential(nn.Linear(48, 6), *last, nn.LogSoftmax(dim=1))

    def forward(self, pages: torch.Tensor) -> torch.Tensor:
        return self.out(self.lstm(self.pages(pages))[0].mean(1))


@broken(
    rules=("activation-before-loss", "clipped-prediction", "unreachable-targets"),
    words=("relu", "activations", "cut off", "negative"),
    nodes=("model.out", "model.out.0", "model.out.1"),
)
def wishes_behind_two_activations(lab: Lab) -> None:
    """The last layer has two activations: a ReLU sets the negative scores to zero before the log-softmax reads them.

    Source: UMLAUT (CHI 2021), final layer has several activations.
    """
    model, criterion = _Visitor(relu=not lab.fixed), nn.NLLLoss()

    def loss_of(pages: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return criterion(model(pages), wanted)

    after = lab.validating(model, lambda number: _visits(7000 + number), loss_of)
    lab.fit(model, _visits, loss_of, lr=1e-2, after=after)
