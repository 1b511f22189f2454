"""Mistakes in attention: which places it may look at, over what its weights add up to one, and where things stand."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Batches, Lab
from stepscope.examples.broken.language import WIDTH, Writer

HEADS = 4


class Heads(nn.Module):
    """Causal attention with several heads, written out: ``(batch, time, width)`` to the same."""

    def __init__(self, *, ahead: int = 0, viewed: bool = False, columns: bool = False) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        self.ahead, self.viewed, self.columns = ahead, viewed, columns

    def split(self, x: torch.Tensor) -> torch.Tensor:
        batch, time, width = x.shape
        if self.viewed:
            return x.view(batch, HEADS, time, width // HEADS)  # bug: heads_split_by_a_view
        return x.view(batch, time, HEADS, width // HEADS).transpose(1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        scores = query @ key.transpose(2, 3) * query.shape[3] ** -0.5
        future = torch.ones_like(scores[0, 0]).triu(1 + self.ahead) > 0
        scores = scores.masked_fill(future, -torch.inf)  # bug: causal_mask_off_by_one
        weights = scores.softmax(2 if self.columns else 3)  # bug: attention_adds_up_over_the_queries
        return (weights @ value).transpose(1, 2).flatten(2)


def _write(lab: Lab, attention: Heads) -> None:
    """Learn to predict the next character of a text."""
    _, count = data.text()
    model = Writer(count, attention)
    lab.fit(
        model, data.characters(),
        lambda text, following: F.cross_entropy(model(text).flatten(0, 1), following.flatten()), lr=5e-3,
    )  # fmt: skip


def _recall(lab: Lab, attention: Heads, *, back: int | None) -> None:
    """Learn to say at each place of a random text which letter stood ``back`` places before, or which was the first."""
    model = Writer(12, attention)

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        text = torch.randint(12, (32, data.CONTEXT), generator=torch.Generator().manual_seed(number))
        return text, text[:, :1].expand_as(text) if back is None else text.roll(back, 1)

    def loss_of(text: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        known = slice(back or 0, None)
        return F.cross_entropy(model(text)[:, known].flatten(0, 1), wanted[:, known].flatten())

    lab.fit(model, batches, loss_of, lr=5e-3)


@broken(rules=("future-leak",), words=("causal", "future", "later position"), nodes=("model.attention",))
def causal_mask_off_by_one(lab: Lab) -> None:
    """The causal mask begins one diagonal too far right: each character sees the next one, which it has to predict.

    Source: Transformers issue 22001 and TransformerLens issue 284, which ask where the mask's diagonal belongs;
    taxonomy of Humbatova et al. (ICSE 2020), wrong masking.
    """
    _write(lab, Heads(ahead=0 if lab.fixed else 1))


@broken(
    rules=("future-leak", "softmax-over-batch"), words=("over the queries", "wrong dim", "causal", "do not add up"),
    nodes=("model.attention",),
)  # fmt: skip
def attention_adds_up_over_the_queries(lab: Lab) -> None:
    """The attention's softmax is taken over the queries, not the keys, so that the weights depend on later queries.

    Source: PyTorch forum, which dimension the softmax of attention is over; defect4ML, wrong dimension given to an API.
    """
    _recall(lab, Heads(columns=not lab.fixed), back=None)


@broken(
    rules=("future-leak",), words=("causal", "future", "reshape", "view", "later position"),
    nodes=("model.attention", "model.attention.query", "model.attention.key", "model.attention.value"),
)  # fmt: skip
def heads_split_by_a_view(lab: Lab) -> None:
    """The heads are split by a view without the transpose, which mixes places with features, and lets the future in.

    Source: Karpathy's recipe, view instead of permute; a classic of attention written by hand.
    """
    _recall(lab, Heads(viewed=not lab.fixed), back=3)


class Pooled(nn.Module):
    """A learned query attends to a sequence ``(batch, time, 4)``, and gives the scores of four classes."""

    def __init__(self, *, width: int = 24, all_in_one_place: bool = False) -> None:
        super().__init__()
        self.embed, self.place = nn.Linear(4, width), nn.Embedding(12, width)
        self.query = nn.Parameter(torch.randn(1, 1, width))
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.head = nn.Linear(width, 4)
        self.all_in_one_place = all_in_one_place

    def forward(self, x: torch.Tensor, hidden: torch.Tensor | None = None) -> torch.Tensor:
        number = torch.arange(x.shape[1])
        if self.all_in_one_place:
            number = torch.zeros_like(number)
        x = self.embed(x) + self.place(number)  # bug: every_place_is_the_first
        seen, _ = self.attention(self.query.expand(len(x), -1, -1), x, x, key_padding_mask=hidden)
        return self.head(seen[:, 0])


@broken(rules=("unused-embeddings",), words=("never looked up",), nodes=("model.place", "model.place.weight"))
def every_place_is_the_first(lab: Lab) -> None:
    """All positions are given as 0, so that the net cannot tell the first moment, which it is asked for, from others.

    Source: Transformers issues on position_ids that a wrapper or left padding sets wrong; Humbatova et al. (ICSE 2020).
    """
    model = Pooled(all_in_one_place=not lab.fixed)
    lab.fit(model, data.sequences(12), lambda x, y: F.cross_entropy(model(x), y), lr=1e-2)


def _padded(length: int = 12) -> Batches:
    """Sequences of 3 to 8 moments, padded with zeros; the class is that of the largest sum."""

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(number)
        x = torch.randn(64, length, 4, generator=generator)
        real = torch.arange(length) < torch.randint(3, 9, (64, 1), generator=generator)
        x = x * real[:, :, None]
        return x, real, x.sum(1).argmax(1)

    return batches


@broken(
    rules=("ignored-input", "constant-output"), words=("padding", "mask"),
    nodes=("model.attention", "input", "input.hidden", "model.head"),
)  # fmt: skip
def padding_mask_the_wrong_way_round(lab: Lab) -> None:
    """The mask says True for real moments, where MultiheadAttention wants True for padding: it sees padding only.

    Source: DETR issue 96 and TransformerTranslation issue 2; Transformers and PyTorch define padding masks both ways.
    """
    model = Pooled()

    def loss_of(x: torch.Tensor, real: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        hidden = ~real if lab.fixed else real
        return F.cross_entropy(model(x, hidden), y)  # bug: padding_mask_the_wrong_way_round

    lab.fit(model, _padded(), loss_of, lr=1e-2)
