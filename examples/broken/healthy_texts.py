"""Training runs that read texts and numbers in unusual ways, in which nothing is wrong."""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.lab import Lab, descend


def letters_by_their_company(lab: Lab) -> None:
    """Skip-grams with negative samples: sparse gradients, and output vectors that start at zero, as word2vec's do."""
    text, count = data.text()
    often = torch.bincount(text, minlength=count).float() ** 0.75
    inner, outer = (nn.Embedding(count, 24, sparse=True) for _ in range(2))
    nn.init.uniform_(inner.weight, -0.5 / 24, 0.5 / 24)
    nn.init.zeros_(outer.weight)
    model = nn.ModuleDict({"inner": inner, "outer": outer})

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(number)
        place = torch.randint(2, len(text) - 2, (512,), generator=generator)
        away = torch.tensor([-2, -1, 1, 2])[torch.randint(4, (512,), generator=generator)]
        others = torch.multinomial(often, 512 * 5, replacement=True, generator=generator).view(512, 5)
        return text[place], text[place + away], others

    def loss_of(letter: torch.Tensor, near: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        found = inner(letter)
        apart = (outer(others) @ found[:, :, None])[:, :, 0]
        return -(F.logsigmoid((found * outer(near)).sum(1)) + F.logsigmoid(-apart).sum(1)).mean()

    lab.fit(model, batches, loss_of, torch.optim.SparseAdam(list(model.parameters()), 3e-2))


class _Scribe(nn.Module):
    """Says how likely each letter of a text is, given those before it."""

    def __init__(self, letters: int, width: int = 48) -> None:
        super().__init__()
        self.embed = nn.Embedding(letters, width)
        self.read, self.head = nn.LSTM(width, width, batch_first=True), nn.Linear(width, letters)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        states, _ = self.read(self.embed(text[:, :-1]))
        return self.head(states).log_softmax(2).gather(2, text[:, 1:, None])[:, :, 0]


def _taught(steps: int = 40) -> _Scribe:
    _, count = data.text()
    scribe, batches = _Scribe(count), data.characters()
    optimizer = torch.optim.Adam(scribe.parameters(), 1e-2)
    for number in range(steps):
        descend(-scribe(batches(number)[0]).mean(), optimizer)
    return scribe


def preferences_beside_a_frozen_copy(lab: Lab) -> None:
    """Direct preference optimisation: texts against the same with their second half reversed, beside a frozen copy."""
    policy = _taught()
    copy = deepcopy(policy).requires_grad_(False)
    letters = data.characters()

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        text, _ = letters(number)
        return text, torch.cat([text[:, :12], text[:, 12:].flip(1)], dim=1)

    def loss_of(liked: torch.Tensor, disliked: torch.Tensor) -> torch.Tensor:
        gained = (policy(liked) - copy(liked)).sum(1)
        lost = (policy(disliked) - copy(disliked)).sum(1)
        return -F.logsigmoid(0.1 * (gained - lost)).mean()

    model = nn.ModuleDict({"policy": policy, "copy": copy})
    lab.fit(model, batches, loss_of, torch.optim.RMSprop(policy.parameters(), 3e-4))


class _Prefixed(nn.Module):
    """Attention without positions but with a toll on distance, which sees all of a prefix, and no later letters."""

    bias: torch.Tensor

    def __init__(self, letters: int, prefix: int, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(letters, width)
        self.norm = nn.LayerNorm(width)
        self.query_key_value, self.join = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.think = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 64), nn.SiLU(), nn.Linear(64, width))
        self.head = nn.Linear(width, letters)
        places = torch.arange(data.CONTEXT)
        away = places[:, None] - places
        toll = -away.abs() * torch.tensor([1.0, 0.5, 0.25, 0.125])[:heads, None, None]
        self.register_buffer("bias", toll.masked_fill((away < 0) & (places >= prefix), -torch.inf))

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        x = self.embed(text)
        parts = self.query_key_value(self.norm(x)).chunk(3, dim=2)
        query, key, value = (part.unflatten(2, (4, -1)).transpose(1, 2) for part in parts)
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=self.bias)
        x = x + self.join(seen.transpose(1, 2).flatten(2))
        return self.head(x + self.think(x))


def continued_from_a_prefix(lab: Lab, prefix: int = 12) -> None:
    """A prefix of twelve letters is read both ways; only what follows is predicted, each letter by those before."""
    _, count = data.text()
    model = _Prefixed(count, prefix)

    def loss_of(text: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        scores = model(text)[:, prefix - 1 :]
        return F.cross_entropy(scores.flatten(0, 1), following[:, prefix - 1 :].flatten(), label_smoothing=0.05)

    lab.fit(model, data.characters(), loss_of, lr=5e-3)


class _Pointer(nn.Module):
    """Points at one number of a row after the other, and never twice at the same."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.zeros(width))
        self.embed = nn.Linear(1, width)
        self.read, self.write = nn.GRU(width, width, batch_first=True), nn.GRUCell(width, width)
        self.place, self.ask = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.score = nn.Linear(width, 1, bias=False)

    def forward(self, numbers: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
        x = self.embed(numbers[:, :, None])
        memory, last = self.read(x)
        places, state, given = self.place(memory), last[0], self.start.expand(len(x), -1)
        taken = torch.zeros_like(numbers, dtype=torch.bool)
        scores = []
        for wanted in order.unbind(1):
            state = self.write(given, state)
            score = self.score((places + self.ask(state)[:, None]).tanh())[:, :, 0]
            scores.append(score.masked_fill(taken, -torch.inf))
            taken = taken.scatter(1, wanted[:, None], value=True)
            given = x[torch.arange(len(x)), wanted]
        return torch.stack(scores, dim=1)


def pointed_at_in_order(lab: Lab) -> None:
    """A pointer network sorts five numbers; those it has pointed at are masked, so that its last choice is none."""
    model = _Pointer()

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        numbers = torch.randn(64, 5, generator=torch.Generator().manual_seed(number))
        return numbers, numbers.argsort(1)

    def loss_of(numbers: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(numbers, order).flatten(0, 1), order.flatten())

    lab.fit(model, batches, loss_of, lr=1e-2)
