"""Training runs on sequences, sets and functions in which nothing is wrong."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import mlp
from stepscope.examples.transformer import CharTransformer


def character_transformer(lab: Lab) -> None:
    """Two blocks of a transformer with AdamW, a warm-up and clipped gradients."""
    _, count = data.text()
    model = CharTransformer(count, context=data.CONTEXT, width=48, blocks=2, heads=4)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, 0.05, total_iters=30)
    lab.recorder.watch(model, optimizer)
    batches = data.characters()
    for number in range(lab.steps):
        text, following = batches(number)
        with lab.recorder.step("train"):
            loss = F.cross_entropy(model(text).flatten(0, 1), following.flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        warm_up.step()


class RecurrentWriter(nn.Module):
    """An LSTM whose embedding is its output layer, too."""

    def __init__(self, characters: int, width: int = 48) -> None:
        super().__init__()
        self.embed = nn.Embedding(characters, width)
        nn.init.normal_(self.embed.weight, std=width**-0.5)
        self.read = nn.LSTM(width, width, batch_first=True)
        self.drop = nn.Dropout(0.1)
        self.predict = nn.Linear(width, characters)
        self.predict.weight = self.embed.weight

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        states, _ = self.read(self.embed(text))
        return self.predict(self.drop(states))


def tied_recurrent_writer(lab: Lab) -> None:
    """An LSTM over characters with tied weights."""
    _, count = data.text()
    model = RecurrentWriter(count)
    lab.fit(
        model, data.characters(),
        lambda text, following: F.cross_entropy(model(text).flatten(0, 1), following.flatten()), lr=5e-3,
    )  # fmt: skip


class DilatedWriter(nn.Module):
    """Causal convolutions with growing gaps, each added to the stream."""

    def __init__(self, characters: int, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(characters, width)
        self.convolve = nn.ModuleList([nn.Conv1d(width, width, 2, dilation=2**depth) for depth in range(4)])
        self.head = nn.Linear(width, characters)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        x = self.embed(text).transpose(1, 2)
        for depth, layer in enumerate(self.convolve):
            x = x + F.gelu(layer(F.pad(x, (2**depth, 0))))
        return self.head(x.transpose(1, 2))


def dilated_convolutions(lab: Lab) -> None:
    """A causal convolutional net over characters."""
    _, count = data.text()
    model = DilatedWriter(count)
    lab.fit(
        model, data.characters(),
        lambda text, following: F.cross_entropy(model(text).flatten(0, 1), following.flatten()),
    )  # fmt: skip


def matrix_factorisation(lab: Lab) -> None:
    """Users and things get codes whose product is how much the one likes the other."""
    taste, kind = torch.randn(40, 4), torch.randn(30, 4)
    users, things = nn.Embedding(40, 8), nn.Embedding(30, 8)
    for embedding in (users, things):
        nn.init.normal_(embedding.weight, std=0.3)
    model = nn.ModuleDict({"users": users, "things": things})

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(number)
        user = torch.randint(40, (128,), generator=generator)
        thing = torch.randint(30, (128,), generator=generator)
        return user, thing, (taste[user] * kind[thing]).sum(1) / 2

    lab.fit(model, batches, lambda u, t, y: F.mse_loss((users(u) * things(t)).sum(1), y), lr=2e-2)


def largest_of_a_set(lab: Lab) -> None:
    """A net over sets learns the largest of seven numbers."""
    each, together = mlp(1, 32, 32), mlp(32, 32, 1)
    model = nn.ModuleDict({"each": each, "together": together})

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        numbers = torch.randn(64, 7, 1, generator=torch.Generator().manual_seed(number))
        return numbers, numbers.amax(1)

    lab.fit(model, batches, lambda x, y: F.mse_loss(together(each(x).amax(1)), y))


class GraphNet(nn.Module):
    """Two rounds of messages between the six vertices of a graph."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.embed = nn.Linear(1, width)
        self.send = nn.ModuleList([nn.Linear(width, width) for _ in range(2)])
        self.keep = nn.ModuleList([nn.Linear(width, width) for _ in range(2)])
        self.head = nn.Linear(width, 1)

    def forward(self, features: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.embed(features))
        for send, keep in zip(self.send, self.keep, strict=True):
            x = F.relu(keep(x) + edges @ send(x))
        return self.head(x)


def messages_on_graphs(lab: Lab) -> None:
    """Each vertex learns the mean of its neighbours' features."""
    model = GraphNet()

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(number)
        edges = (torch.rand(32, 6, 6, generator=generator) < 0.5).float()
        edges = edges / edges.sum(2, keepdim=True).clamp(min=1)
        features = torch.randn(32, 6, 1, generator=generator)
        return features, edges, edges @ features

    lab.fit(model, batches, lambda x, edges, y: F.mse_loss(model(x, edges), y), lr=5e-3)


def slope_of_a_curve(lab: Lab) -> None:
    """A net learns the sine from its slope: the loss is on a derivative by the input."""
    model = mlp(1, 32, 32, 1, activation=nn.Tanh)

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        x = 6 * torch.rand(64, 1, generator=torch.Generator().manual_seed(number)) - 3
        return x, x.cos()

    def loss_of(x: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        x = x.requires_grad_()
        (got,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        return F.mse_loss(got, slope) + model(torch.zeros(1, 1)).square().mean()

    lab.fit(model, batches, loss_of)


def sums_with_iterations(lab: Lab) -> None:
    """A recurrent net adds five numbers, one an iteration, with truncated gradients never needed."""
    cell, head = nn.GRUCell(1, 24), nn.Linear(24, 1)
    model = nn.ModuleDict({"cell": cell, "head": head})
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        numbers = torch.rand(5, 64, 1, generator=torch.Generator().manual_seed(number)) - 0.5
        with lab.recorder.step("train") as step:
            state = torch.zeros(64, 24)
            for one in numbers:
                with step.iteration():
                    state = cell(one, state)
            descend(F.mse_loss(head(state), numbers.sum(0)), optimizer)
