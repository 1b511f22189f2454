"""Mistakes in how losses are summed, gradients are made private and weights begin, as people reported them."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pydoc_data.topics import topics

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _survivors(rows: int, seed: int) -> _Batch:
    """Eight measurements of patients, how long each was followed ``(rows, 1)``, and whether they died ``(rows, 1)``."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 8, generator=generator)
    hazard = (x[:, 0] - 0.8 * x[:, 1] + 0.6 * x[:, 2] * x[:, 3]).exp()[:, None]
    death = -torch.rand(rows, 1, generator=generator).clamp(min=1e-6).log() / hazard
    end = 4 * torch.rand(rows, 1, generator=generator)
    return x, torch.minimum(death, end), (death <= end).float()


def _concordance(risk: torch.Tensor, time: torch.Tensor, died: torch.Tensor) -> torch.Tensor:
    """Of the pairs whose order is known, the share in which who died first had the higher risk."""
    comparable = (time < time.T) & (died > 0)
    return (risk > risk.T)[comparable].float().mean()


@broken(words=("risk set", "axis", "dimension", "dim="), nodes=("loss",))
def risks_summed_over_the_wrong_axis(lab: Lab) -> None:
    """Cox's partial likelihood sums the risks over the wrong axis of the mask, and each patient's own risk cancels out.

    Source: czifan/DeepSurv.pytorch 5, loss value is going to be negative (``dim=0`` is right).
    """
    model = nn.Sequential(
        nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 32), nn.BatchNorm1d(32), nn.ReLU(),
        nn.Linear(32, 1),
    )  # fmt: skip
    axis = 0 if lab.fixed else 1

    def partial_likelihood(risk: torch.Tensor, time: torch.Tensor, died: torch.Tensor) -> torch.Tensor:
        at_risk = (time >= time.T).float()
        hazards = (risk.exp() * at_risk).sum(axis) / at_risk.sum(0)  # bug: risks_summed_over_the_wrong_axis
        return -((risk - hazards.log()[:, None]) * died).sum() / died.sum()

    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, weight_decay=1e-4)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        x, time, died = _survivors(96, number)
        with lab.recorder.step("train"):
            descend(partial_likelihood(model(x), time, died), optimizer)
        if number % 30 == 29:
            model.eval()
            x, time, died = _survivors(400, 9000)
            with lab.recorder.step("validation") as step, torch.no_grad():
                step.record("concordance", _concordance(model(x), time, died))
            model.train()


@broken(
    rules=("tiny-batch", "altered-gradients"),
    words=("noise", "sample rate", "few samples", "few rows"),
    nodes=("model.0.weight", "model.2.weight"),
)
def private_batches_too_small_for_their_noise(lab: Lab) -> None:
    """A private training draws four rows at a time, so that the noise added to their gradients drowns what they say.

    Source: meta-pytorch/opacus 211, 0.1 accuracy on CIFAR10 is essentially random (parameters, sample rate 0.001).
    """
    (x, y), unseen = data.pixels(), data.unseen_pixels()
    sigma, clip = 0.7, 1.5
    rate = 0.3 if lab.fixed else 0.003  # set-up bug: private_batches_too_small_for_their_noise
    model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda _: unseen, lambda x, y: F.cross_entropy(model(x), y))
    for number in range(lab.steps):
        generator = torch.Generator().manual_seed(number)
        chosen = torch.rand(len(x), generator=generator) < rate
        chosen[number] = True
        rows, labels = x[chosen], y[chosen]
        with torch.no_grad():
            hidden = model[:2](rows)
            wrong = model[2](hidden).softmax(1) - F.one_hot(labels, 10)
            inner = (wrong @ model[2].weight) * (1 - hidden**2)
        squares = (rows.square().sum(1) + 1) * inner.square().sum(1)
        squares = squares + (hidden.square().sum(1) + 1) * wrong.square().sum(1)
        shrink = (clip / squares.sqrt()).clamp(max=1)
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            loss = (shrink * F.cross_entropy(model(rows), labels, reduction="none")).sum() / (rate * len(x))
            loss.backward()
            for parameter in model.parameters():
                if parameter.grad is not None:
                    noise = torch.randn(parameter.shape, generator=generator)
                    parameter.grad += sigma * clip * noise / (rate * len(x))
            optimizer.step()
        after(number)


def _utterances(number: int, *, careful: bool = False) -> list[_Batch]:
    """Four small batches of utterances of equal length, and the tags of their words.

    Three are of two words, which were tagged in a hurry unless ``careful``, and one of forty.
    """
    generator = torch.Generator().manual_seed(number)
    batches: list[_Batch] = []
    for length in (2, 2, 40, 2):
        words = torch.randint(40, (6, length), generator=generator)
        tags = (words + words.roll(1, 1) % 3) % 8
        hurried = torch.rand(6, length, generator=generator) < (0.9 if length == 2 and not careful else 0.0)
        batches.append((words, torch.where(hurried, torch.randint(8, (6, length), generator=generator), tags)))
    return batches


class _Tagger(nn.Module):
    """Tags words by what they are, and what is before them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 32)
        self.mix, self.tag = nn.Conv1d(32, 64, 2), nn.Linear(64, 8)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        around = torch.cat([words[:, -1:], words], 1)
        return self.tag(F.relu(self.mix(self.embed(around).transpose(1, 2))).transpose(1, 2))


@broken(rules=("uneven-means",), words=("tokens", "length", "mean of means"), nodes=("loss",))
def means_of_unequal_lengths_accumulated(lab: Lab) -> None:
    """Gradients of four small batches are accumulated with a mean loss each, so that words in short ones weigh more.

    Source: Lightning-AI/pytorch-lightning 20350, gradient accumulation calculation may be incorrect.
    """
    model = _Tagger()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    lab.recorder.watch(model, optimizer)

    def of_all(batches: list[_Batch]) -> torch.Tensor:
        sums = [F.cross_entropy(model(words).flatten(0, 1), tags.flatten(), reduction="sum") for words, tags in batches]
        return torch.stack(sums).sum() / sum(tags.numel() for _, tags in batches)

    for number in range(lab.steps):
        batches = _utterances(number)
        total = sum(tags.numel() for _, tags in batches)
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            for words, tags in batches:
                errors = F.cross_entropy(model(words).flatten(0, 1), tags.flatten(), reduction="none")
                share = tags.numel() / total if lab.fixed else 1 / len(batches)
                mean = share * errors.mean()  # bug: means_of_unequal_lengths_accumulated
                mean.backward()
            optimizer.step()
        lab.validate(lambda n: (torch.tensor(n),), lambda n: of_all(_utterances(9000 + int(n))), number)


_KINDS = ("formatstrings", "specialnames", "typesmapping", "import")


@lru_cache
def _page(topic: int) -> torch.Tensor:
    """A topic as numbers below seventy."""
    return torch.tensor(list(topics[_KINDS[topic]].lower().encode("ascii", "replace"))) % 70


def _letters(number: int, *, later: bool = False) -> _Batch:
    """Pieces of four topics as one-hot letters of unit variance ``(32, 70, 64)``, and the topic of each.

    Every fifth stretch of 400 letters is kept for the validation.
    """
    generator = torch.Generator().manual_seed(number)
    about = torch.randint(4, (32,), generator=generator)
    pieces = torch.zeros(32, 64, dtype=torch.long)
    for row, topic in enumerate(about.tolist()):
        stretches = torch.arange(len(_page(topic)) // 400)
        stretches = stretches[(stretches % 5 == 4) == later]
        start = 400 * int(stretches[int(torch.randint(len(stretches), (1,), generator=generator))])
        start += int(torch.randint(336, (1,), generator=generator))
        pieces[row] = _page(topic)[start : start + 64]
    return 8 * F.one_hot(pieces, 70).float().transpose(1, 2), about


@broken(
    rules=("weight-scale",),
    words=("initial",),
    nodes=("model", "model.0.weight", "model.3.weight", "model.5.weight", "model.13.weight"),
)
def letters_through_weights_that_fade(lab: Lab) -> None:
    """A deep net for letters keeps default initial weights, which shrink the signal from layer to layer.

    Source: johnb30/py_crepe 5, issue about accuracy on test set (great start with a RandomNormal initializer).
    """
    model = nn.Sequential(
        nn.Conv1d(70, 32, 5), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(32, 32, 3), nn.ReLU(), nn.Conv1d(32, 32, 3),
        nn.ReLU(), nn.Conv1d(32, 32, 3), nn.ReLU(), nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(32, 64), nn.ReLU(),
        nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4),
    )  # fmt: skip
    for layer in list(model.children())[:-1]:
        if lab.fixed and isinstance(layer, nn.Conv1d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # set-up bug: letters_through_weights_that_fade

    def loss_of(letters: torch.Tensor, about: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(letters), about)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    after = lab.validating(model, lambda number: _letters(9000 + number, later=True), loss_of)
    replace(lab, steps=210).fit(model, _letters, loss_of, optimizer, after=after)
