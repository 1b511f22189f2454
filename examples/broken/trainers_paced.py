"""Mistakes in how far a step goes, and in what stands before the loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


class _CrossentropyOfProbabilities(nn.Module):
    """The cross-entropy of what already are probabilities, as Keras computes it: they are made to sum up to 1."""

    def forward(self, found: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        share = (found / found.sum(1, keepdim=True)).clamp(1e-7, 1 - 1e-7)
        return F.nll_loss(share.log(), classes)


@broken(
    words=("softmax", "probabilit", "logits", "raw scores", "sum to 1"), nodes=("model", "model.dense", "criterion")
)
def scores_given_to_a_loss_of_probabilities(lab: Lab) -> None:
    """The net ends with raw scores, but its loss expects probabilities: the softmax between them is missing.

    Source: UMLAUT (CHI 2021), check_softmax_computed_before_loss: loss function expects normalized input.
    """
    model = nn.Sequential()
    model.add_module("conv", nn.Conv2d(1, 20, 3))
    model.add_module("relu", nn.ReLU())
    model.add_module("pool", nn.MaxPool2d(2))
    model.add_module("flatten", nn.Flatten())
    model.add_module("dense", nn.Linear(180, 10))
    if lab.fixed:
        model.add_module("softmax", nn.Softmax(dim=1))
    criterion = _CrossentropyOfProbabilities()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)
    lab.recorder.watch({"model": model, "criterion": criterion}, optimizer)
    batches = data.draw(data.images(), 48)
    for number in range(lab.steps):
        x, y = batches(number)
        with lab.recorder.step("train"):
            found = model(x)
            descend(criterion(found, y), optimizer)  # bug: scores_given_to_a_loss_of_probabilities


def _dense(inputs: int, units: int, activation: Callable[[], nn.Module] | None = None) -> nn.Module:
    """A layer as in Keras: without an activation unless one is given."""
    layer = nn.Linear(inputs, units)
    return nn.Sequential(layer, activation()) if activation else nn.Sequential(layer)


def _rings(number: int) -> _Batch:
    """Points ``(64, 2)`` in one of three rings around each other, and which ring that is."""
    generator = torch.Generator().manual_seed(number)
    ring = torch.randint(3, (64,), generator=generator)
    angle = 6.2832 * torch.rand(64, generator=generator)
    radius = 0.5 + ring + 0.15 * torch.randn(64, generator=generator)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1), ring


@broken(
    rules=("missing-nonlinearity",), words=("activation", "nonlinear"), nodes=("model.0.0", "model.1.0", "model.2.0")
)
def dense_layers_are_linear_unless_told(lab: Lab) -> None:
    """Three hidden layers are made without naming an activation, and so the whole net is one linear map.

    Source: UMLAUT (CHI 2021), check_missing_activations.
    """
    activation = nn.GELU if lab.fixed else None
    hidden = [_dense(a, 24, activation) for a in (2, 24, 24)]  # set-up bug: dense_layers_are_linear_unless_told
    model = nn.Sequential(*hidden, _dense(24, 3))
    lab.fit(model, _rings, lambda x, ring: F.cross_entropy(model(x), ring), lr=5e-3)


class _Patches(nn.Module):
    """A small vision transformer over sixteen patches of a digit."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, width, 2, stride=2)
        self.places = nn.Parameter(0.5 * torch.randn(16, width))
        layer = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2) + self.places
        return self.head(self.encoder(tokens).mean(1))


@broken(rules=("learning-rate",), words=("learning rate",), nodes=("loss", "model.patch.weight", "model.head.weight"))
def transformer_with_a_rate_of_a_tenth(lab: Lab) -> None:
    """A vision transformer is trained by Adam with a learning rate of 0.1, as one would give to plain descent.

    Source: UMLAUT (CHI 2021), check_learning_rate_range: the learning rate is high.
    """
    model = _Patches()
    rate = 4e-3 if lab.fixed else 0.1  # set-up bug: transformer_with_a_rate_of_a_tenth
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    others, classes = data.unseen_pixels()
    after = lab.validating(
        model, lambda _: (others.view(-1, 1, 8, 8), classes), lambda x, y: F.cross_entropy(model(x), y)
    )
    batches = data.draw(data.images(), 32)
    lab.fit(model, batches, lambda x, y: F.cross_entropy(model(x), y), optimizer, after=after)


class _Taste(nn.Module):
    """How somebody likes a film: two vectors, multiplied, and what both are like on the whole."""

    def __init__(self, people: int, films: int, width: int = 8) -> None:
        super().__init__()
        self.person, self.film = nn.Embedding(people, width), nn.Embedding(films, width)
        self.strict, self.good = nn.Embedding(people, 1), nn.Embedding(films, 1)
        for table in (self.person, self.film, self.strict, self.good):
            nn.init.normal_(table.weight, std=0.3)

    def forward(self, who: torch.Tensor, what: torch.Tensor) -> torch.Tensor:
        fit = (self.person(who) * self.film(what)).sum(1)
        return fit + self.strict(who)[:, 0] + self.good(what)[:, 0]


def _ratings(people: int, films: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    taste = torch.randn(people, 2, generator=generator) @ torch.randn(2, films, generator=generator)
    who = torch.randint(people, (6000,), generator=generator)
    what = torch.randint(films, (6000,), generator=generator)
    return who, what, taste[who, what] + 0.2 * torch.randn(6000, generator=generator)


@broken(rules=("learning-rate",), words=("learning rate",), nodes=("loss", "model.person.weight", "model.good.weight"))
def rate_read_as_a_ten_millionth(lab: Lab) -> None:
    """The learning rate of a recommender is 1e-7 in place of 1e-2, and its vectors stay where they began.

    Source: UMLAUT (CHI 2021), check_learning_rate_range: the learning rate is low.
    """
    who, what, stars = _ratings(80, 60)
    model = _Taste(80, 60)
    rate = 3e-2 if lab.fixed else 1e-7  # set-up bug: rate_read_as_a_ten_millionth
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, betas=(0.9, 0.98))
    criterion = nn.HuberLoss()
    lab.recorder.watch(model, optimizer)
    for epoch in range(6):
        order = torch.randperm(6000, generator=torch.Generator().manual_seed(epoch))
        for rows in order.split(240):
            with lab.recorder.step("train"):
                descend(criterion(model(who[rows], what[rows]), stars[rows]), optimizer)
