"""Mistakes with text: masks, padding, targets that are not shifted."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab
from stepscope.examples.transformer import CharTransformer

WIDTH = 32


class Attention(nn.Module):
    """One head of attention, written out; by default causal and scaled."""

    def __init__(self, width: int, *, causal: bool = True, scaled: bool = True) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.causal, self.scaled = causal, scaled

    def forward(self, x: torch.Tensor, hidden: torch.Tensor | None = None) -> torch.Tensor:
        scores = self.query(x) @ self.key(x).transpose(1, 2)
        scores = scores * x.shape[2] ** -0.5 if self.scaled else scores * 2  # bug: attention_not_scaled
        if self.causal:
            scores = scores.masked_fill(torch.ones_like(scores[0]).triu(1) > 0, -torch.inf)
        if hidden is not None:
            scores = scores.masked_fill(hidden[:, None], -torch.inf)
        weights = scores.softmax(2)  # bug: causal_mask_missing
        return weights @ self.value(x)


class Writer(nn.Module):
    """Predicts the next character of a text."""

    def __init__(self, characters: int, attention: nn.Module, width: int = WIDTH) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(characters, width), nn.Embedding(data.CONTEXT, width)
        self.norm, self.attention = nn.LayerNorm(width), attention
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, characters))

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        x = self.embed(text) + self.place(torch.arange(text.shape[1]))
        return self.head(x + self.attention(self.norm(x)))


def _next_character(model: nn.Module, text: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(text).flatten(0, 1), following.flatten())


@broken(
    rules=("future-leak",), words=("causal", "future"),
    nodes=("model.attention", "model.attention.value"),
)  # fmt: skip
def causal_mask_missing(lab: Lab) -> None:
    """The attention of a language model has no causal mask and sees the characters that it has to predict.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong masking; a leak that only generation shows.
    """
    _, count = data.text()
    model = Writer(count, Attention(WIDTH, causal=lab.fixed))
    lab.fit(model, data.characters(), lambda text, following: _next_character(model, text, following))


@broken(
    rules=("attention-collapse", "attention-logits"),
    words=("attention entropy", "attends", "attention logit", "saturat"),
    nodes=("model.attention", "model.attention.query", "model.attention.key", "model.attention.value"),
)  # fmt: skip
def attention_not_scaled(lab: Lab) -> None:
    """The attention's scores are multiplied instead of divided by the root of the width: each row sees one place only.

    Source: SageMaker Debugger's SaturatedActivation, for the softmax of attention; entropy collapse (Zhai et al. 2023).
    """
    _, count = data.text()
    width = 128
    model = Writer(count, Attention(width, scaled=lab.fixed), width)
    lab.fit(model, data.characters(), lambda text, following: _next_character(model, text, following), lr=1e-3)


@broken(
    rules=("masked-attention", "non-finite"),
    words=("masked",),
    nodes=("model.attention", "model.attention.value"),
    onset=40,
)
def empty_text_masked_entirely(lab: Lab) -> None:
    """From step 40 on a text is empty: all its places are masked, and the softmax over nothing is NaN.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong masking; PyTorch's own issues on fully masked rows.
    """
    _, count = data.text()
    attention = Attention(WIDTH, causal=False)
    model = Writer(count, attention)
    letters = data.characters()

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        text, _ = letters(number)
        lengths = torch.randint(5, data.CONTEXT, (len(text),), generator=torch.Generator().manual_seed(number))
        if number >= 40 and not lab.fixed:
            lengths[2] = 0
        return text, torch.arange(data.CONTEXT) >= lengths[:, None], text[:, 0]

    def loss_of(text: torch.Tensor, hidden: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        x = model.embed(text) + model.place(torch.arange(text.shape[1]))
        x = x + attention(model.norm(x), hidden)  # bug: empty_text_masked_entirely
        return F.cross_entropy(model.head(x).mean(1), first)

    lab.fit(model, batches, loss_of)


class BagOfWords(nn.Module):
    """Averages the embeddings of a text; may count the padding, which is most of it."""

    def __init__(self, *, padded: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16, padding_idx=None if padded else 0)
        self.head = nn.Linear(16, 5)
        self.padded = padded

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        x = self.embed(words)
        count = (words > 0).sum(1, keepdim=True)
        return self.head(x.mean(1) if self.padded else x.sum(1) / count)  # bug: mostly_padding


@broken(
    rules=("trained-padding",), words=("padding",),
    nodes=("input", "model.embed", "model.embed.weight"),
)  # fmt: skip
def mostly_padding(lab: Lab) -> None:
    """Texts of 4 words are padded to 80 with word 0, which is trained and averaged like all others.

    Source: SageMaker Debugger's NLPSequenceRatio.
    """
    model = BagOfWords(padded=not lab.fixed)

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(number)
        words = torch.zeros(64, 80, dtype=torch.int64)
        words[:, :4] = torch.randint(1, 50, (64, 4), generator=generator)
        return words, words[:, 0] % 5

    lab.fit(model, batches, lambda words, topic: F.cross_entropy(model(words), topic), lr=1e-2)


@broken(
    rules=("targets-equal-inputs",), words=("equal the input", "leak", "shifted"),
    nodes=("target", "input"),
)  # fmt: skip
def targets_not_shifted(lab: Lab) -> None:
    """The language model is asked for the character that it is given, not for the next one.

    Source: TrainCheck (OSDI 2025), Transformers: labels shifted twice or not at all.
    """
    _, count = data.text()
    model = CharTransformer(count, context=data.CONTEXT, width=WIDTH, blocks=1, heads=2)

    def loss_of(text: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        target = following if lab.fixed else text
        return F.cross_entropy(model(text).flatten(0, 1), target.flatten())  # bug: targets_not_shifted

    lab.fit(model, data.characters(), loss_of)
