"""Mistakes in nets that write one row while they look at another."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab

_Batch = tuple[torch.Tensor, ...]
_WORDS, _START, _END = 12, 12, 13


def _sentences(number: int, batch: int = 32, length: int = 7) -> _Batch:
    """Sentences ``(batch, length)``, and their translations: other words, the other way round, between two marks."""
    given = torch.randint(_WORDS, (batch, length), generator=torch.Generator().manual_seed(number))
    wanted = (5 * given + 3).flip(1) % _WORDS
    return given, F.pad(F.pad(wanted, (1, 0), value=_START), (0, 1), value=_END)


class _Signals(nn.Module):
    """A transformer from one signal of several channels to another."""

    def __init__(self, channels: int = 8, width: int = 32) -> None:
        super().__init__()
        self.lift = nn.Linear(channels, width)
        self.place = nn.Parameter(0.2 * torch.randn(20, width))
        self.transformer = nn.Transformer(width, 4, 1, 1, 64, dropout=0.0, batch_first=True)
        self.lower = nn.Linear(width, channels)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        return self.lower(self.transformer(self.lift(source) + self.place, self.lift(target), tgt_mask=mask))


def _delayed(number: int) -> _Batch:
    """Walks ``(32, 20, 8)`` of eight channels, and the same three moments later, mixed with each other."""
    generator = torch.Generator().manual_seed(number)
    walk = torch.randn(32, 20, 8, generator=generator).cumsum(1) / 3
    return walk, F.pad(walk, (0, 0, 3, 0))[:, :20].roll(1, 2)


@broken(rules=("constant-data",), words=("zeros", "always zero", "never varies"), nodes=("input.target",))
def decoder_given_zeros(lab: Lab) -> None:
    """The decoder of a transformer is given zeros in place of the signal so far, one moment late.

    Source: openillumi.com, a transformer from signal to signal, of which all outputs are the same.
    """
    model = _Signals()

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        so_far = F.pad(y[:, :-1], (0, 0, 1, 0))
        given = so_far if lab.fixed else torch.zeros_like(y)  # bug: decoder_given_zeros
        return F.mse_loss(model(x, given), y)

    def after(number: int) -> None:
        lab.validate(lambda number: _delayed(10_000 + number), loss_of, number)

    lab.fit(model, _delayed, loss_of, after=after)


class _Translator(nn.Module):
    """A transformer with learned places."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(_WORDS + 2, width), nn.Embedding(10, width)
        self.transformer = nn.Transformer(width, 4, 1, 1, 2 * width, dropout=0.0, batch_first=True)
        self.head = nn.Linear(width, _WORDS + 2)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        return self.head(self.transformer(self._placed(source), self._placed(target), tgt_mask=mask))

    def _placed(self, words: torch.Tensor) -> torch.Tensor:
        return self.embed(words) + self.place(torch.arange(words.shape[1]))


def _loss(scores: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(scores.flatten(0, 1), wanted.flatten())


@broken(
    rules=("targets-equal-inputs", "shifted-labels"),
    words=("equal the input", "same as the input", "shifted", "leak"),
    nodes=("input.target", "target"),
)  # fmt: skip
def decoder_asked_for_what_it_is_given(lab: Lab) -> None:
    """The decoder is given the whole target, and judged by how well it gives it back: it need not translate.

    Source: PyTorch forum 53175, nn.Transformer explanation, answer 20.
    """
    model = _Translator()

    def loss_of(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if lab.fixed:
            return _loss(model(source, target[:, :-1]), target[:, 1:])
        return _loss(model(source, target), target)  # bug: decoder_asked_for_what_it_is_given

    def spelled(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        written = target[:, :1]
        for _ in range(target.shape[1] - 1):
            scores = model(source, written)
            written = torch.cat([written, scores[:, -1:].argmax(2)], dim=1)
        return _loss(scores, target[:, 1:])

    def after(number: int) -> None:
        lab.validate(lambda number: _sentences(10_000 + number), spelled, number)

    lab.fit(model, _sentences, loss_of, lr=5e-3, after=after)


class _Attention(nn.Module):
    """Says how much each query has to do with each place, by a product, and sums up what stands there."""

    def __init__(self, width: int, *, over: int) -> None:
        super().__init__()
        self.linear_in = nn.Linear(width, width, bias=False)
        self.linear_out = nn.Linear(2 * width, width, bias=False)
        self.over = over

    def forward(self, query: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        batch, length, _ = query.shape
        scores = torch.bmm(self.linear_in(query), context.transpose(1, 2))
        weights = scores.flatten(0, 1).softmax(self.over).unflatten(0, (batch, length))  # bug: weighed_against_others
        return self.linear_out(torch.cat([torch.bmm(weights, context), query], dim=2)).tanh()


class _Recurrent(nn.Module):
    """A GRU reads, another one writes, and looks back at what was read."""

    def __init__(self, width: int = 48, *, over: int) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(_WORDS + 2, width), nn.Embedding(10, width)
        self.read = nn.GRU(width, width, batch_first=True)
        self.write = nn.GRU(width, width, batch_first=True)
        self.look = _Attention(width, over=over)
        self.head = nn.Linear(width, _WORDS + 2)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        memory, _ = self.read(self.embed(source) + self.place(torch.arange(source.shape[1])))
        states, _ = self.write(self.embed(target) + self.place(torch.arange(target.shape[1])))
        return self.head(self.look(states, memory))


@broken(
    rules=("softmax-over-batch", "batch-leak"),
    words=("softmax over", "other queries", "another dimension", "wrong dimension"),
    nodes=("model.look",),
)  # fmt: skip
def weighed_against_others(lab: Lab) -> None:
    """The softmax of the attention is taken over all queries of the batch, not over the places that are looked at.

    Source: PetrochukM/PyTorch-NLP issue 2, attention's softmax dimension is wrong.
    """
    model = _Recurrent(over=1 if lab.fixed else 0)
    lab.fit(model, _sentences, lambda x, y: _loss(model(x, y[:, :-1]), y[:, 1:]), lr=5e-3)
