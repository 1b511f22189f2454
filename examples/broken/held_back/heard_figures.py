"""Mistakes in nets that read measurements, as users told of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


class _Directions(nn.Module):
    """Encodes pixels, takes the direction of the code, and compares it with one for each class."""

    def __init__(self, *, fixed: bool) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 16), nn.ReLU(), nn.Dropout(0.2))
        self.classes = nn.Linear(16, 10)
        self.fixed = fixed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        code = self.encoder(x)
        squares = code.pow(2).sum(1, keepdim=True)
        length = squares.clamp(min=1e-6).sqrt() if self.fixed else squares.sqrt()  # bug: directions_of_empty_codes
        return self.classes(8 * code / length)


@broken(
    rules=("non-finite",),
    words=("divi", "sqrt", "square root"),
    nodes=("model", "model.encoder", "model.encoder.3", "model.encoder.4"),
    onset=14,
)
def directions_of_empty_codes(lab: Lab) -> None:
    """Codes are divided by the root of their squared sum, which is no number for a code whose units are all zero.

    Source: stats.stackexchange 325451, cost function turning into nan after a certain number of iterations (comment).
    """
    model = _Directions(fixed=lab.fixed)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), y)

    after = lab.validating(model, lambda _: data.unseen_pixels(), loss_of)
    lab.fit(model, data.draw(data.pixels()), loss_of, lr=5e-3, after=after)


def _patients() -> tuple[data.Table, data.Table]:
    """Measurements of patients and the progress of their disease: those to train with, and others."""
    x, y = data.diabetes()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(5))
    return (x[order[:340]], y[order[:340]]), (x[order[340:]], y[order[340:]])


@broken(
    rules=("weight-scale", "saturated-activation"),
    words=("bias", "saturat"),
    nodes=("model.0", "model.0.bias", "model.2", "model.2.bias", "model.1", "model.3"),
)
def hidden_biases_of_eight(lab: Lab) -> None:
    """The biases of the hidden layers start at eight, where a sigmoid gives out one whatever it is shown.

    Source: rasmusbergpalm/DeepLearnToolbox 134, DBN pretraining for NN regression (initial hidden biases too large).
    """
    known, unseen = _patients()
    first, second = nn.Linear(10, 32), nn.Linear(32, 16)
    for layer in (first, second):
        nn.init.xavier_normal_(layer.weight, gain=2.0)
        nn.init.constant_(layer.bias, 0.0 if lab.fixed else 8.0)  # set-up bug: hidden_biases_of_eight
    model = nn.Sequential(first, nn.Sigmoid(), second, nn.Sigmoid(), nn.Linear(16, 1))

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(x), y)

    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, weight_decay=1e-3)
    after = lab.validating(model, lambda _: unseen, loss_of)
    lab.fit(model, data.draw(known), loss_of, optimizer, after=after)


def _scans(number: int) -> _Batch:
    """Findings of a scan ``(64, 12)``, whether there is a lesion ``(64,)``, and its size, if there is one ``(64,)``."""
    generator = torch.Generator().manual_seed(number)
    fixed = torch.Generator().manual_seed(13)
    presence, growth = torch.randn(12, generator=fixed), torch.randn(12, generator=fixed)
    x = torch.randn(64, 12, generator=generator)
    present = (x @ presence / 12**0.5 + torch.randn(64, generator=generator) > 0).float()
    size = (x @ growth / 12**0.5).tanh() * 1.5 + 0.2 * torch.randn(64, generator=generator)
    return x, present, size * present


class _Scanner(nn.Module):
    """A shared trunk, and heads for the presence of a lesion and for its size."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(12, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU())
        self.presence, self.size = nn.Linear(32, 1), nn.Linear(32, 1)

    def forward(self, x: torch.Tensor) -> _Batch:
        shared = self.trunk(x)
        return self.presence(shared).squeeze(1), self.size(shared).squeeze(1)


@broken(
    words=("imput", "missing", "mask", "placeholder", "filled in"),
    nodes=("model.size", "model.size.weight", "input.target", "loss"),
)
def sizes_of_absent_lesions(lab: Lab) -> None:
    """Where there is no lesion, its size counts as zero in the loss, and pulls all sizes towards zero.

    Source: stackexchange (in Nemotron-CC-Math), multi-task learning: a loss function that ignores certain samples.
    """
    model = _Scanner()

    def size_error(guess: torch.Tensor, size: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
        return ((guess - size).square() * counted).sum() / counted.sum().clamp(min=1)

    def unseen_error(x: torch.Tensor, present: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
        score, guess = model(x)
        return F.binary_cross_entropy_with_logits(score, present) + size_error(guess, size, present)

    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    lab.recorder.watch(model, optimizer)
    for number in range(200):
        x, present, size = _scans(number)
        with lab.recorder.step("train") as step:
            score, guess = model(x)
            counted = present if lab.fixed else torch.ones_like(present)  # bug: sizes_of_absent_lesions
            first = F.binary_cross_entropy_with_logits(score, present)
            second = size_error(guess, size, counted)
            step.record("presence_loss", first, type="loss")
            step.record("size_loss", second, type="loss")
            descend(first + second, optimizer)
        lab.validate(lambda n: _scans(9000 + n), unseen_error, number)


@broken(
    rules=("short-training",),
    words=("patience", "early stop", "stopped", "ended"),
    nodes=("model", "loss"),
)
def patience_that_is_never_renewed(lab: Lab) -> None:
    """The count of evaluations without progress is not set back by progress, so that training ends far before its time.

    Source: ilaria-manco/music-audio-tagging-pytorch 4, LR scheduler not working due to early stopping.
    """
    model = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.8)
    criterion, batches = nn.CrossEntropyLoss(), data.draw(data.pixels(), 16)
    unseen, classes = data.unseen_pixels()
    lab.recorder.watch(model, optimizer)
    best, waited = float("inf"), 0
    for number in range(300):
        x, y = batches(number)
        with lab.recorder.step("train"):
            descend(criterion(model(x), y), optimizer)
        if number % 2 == 1:
            with torch.no_grad(), lab.recorder.step("validation") as step:
                error = criterion(model(unseen), classes)
                step.record("loss", error, type="loss")
            if error.item() < best:
                best = error.item()
                waited = 0 if lab.fixed else waited  # set-up bug: patience_that_is_never_renewed
            else:
                waited += 1
            if waited >= 6:
                break
