"""Rules about attention: on runs that have the problem, and on look-alikes that have not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.store import Trial
from support.short_runs import findings, only, record

RULES = ("attention-collapse", "attention-logits", "masked-attention", "future-leak")
WORDS, LENGTH = 10, 9


class Block(nn.Module):
    """Self-attention by hand, or that of torch, with a residual branch around it."""

    def __init__(self, mask: str = "causal", *, width: int = 16, heads: int = 2, scale: float = 1.0) -> None:
        super().__init__()
        self.mask, self.scale, self.heads = mask, scale, heads
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, 3 * width)
        self.torch = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mix = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        length = x.shape[1]
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        normed = self.norm(x)
        if self.mask.startswith("torch"):
            given = ~later if self.mask == "torch, inverted" else later
            return x + self.torch(normed, normed, normed, attn_mask=given, need_weights=False)[0]
        q, k, v = self.project(normed).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if self.mask == "fused":
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = self.scale * q @ k.mT / math.sqrt(k.shape[-1])
            if self.mask == "causal":
                scores = scores.masked_fill(later, -1e4)
            elif self.mask == "transposed":
                scores = scores.masked_fill(later.T, -math.inf)
            mixed = scores.softmax(-1) @ v
        return x + self.mix(mixed.transpose(1, 2).flatten(2))


class Model(nn.Module):
    def __init__(self, *blocks: Block, width: int = 16, out: int = WORDS) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, width), nn.Embedding(LENGTH, width)
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width, out)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.words(tokens) + self.places.weight[: tokens.shape[1]]))


def sentences(number: int, length: int = LENGTH) -> torch.Tensor:
    generator = torch.Generator().manual_seed(number)
    start, step = (torch.randint(1, WORDS, (12, 1), generator=generator) for _ in range(2))
    return (start + torch.arange(length) * step) % WORDS


def write(folder: Path, model: nn.Module, **options: Any) -> Trial:
    """Learn to predict the next token."""

    def loss(number: int, _: object) -> torch.Tensor:
        tokens = sentences(number)
        return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())

    return record(folder, model, loss, **{"steps": 12, **options})


@pytest.mark.parametrize("mask", ["none", "transposed", "torch, inverted"])
def test_a_language_model_that_sees_the_future(mask: str, tmp_path: Path) -> None:
    finding = only(write(tmp_path, Model(Block(mask), Block(mask))), "future-leak")
    end = ".torch" if mask.startswith("torch") else ""
    assert finding.level == "error" and (finding.node, *finding.nodes) == (
        f"model.blocks.0{end}",
        f"model.blocks.1{end}",
    )


@pytest.mark.parametrize("mask", ["causal", "fused", "torch"])
def test_a_language_model_with_a_mask(mask: str, tmp_path: Path) -> None:
    assert findings(write(tmp_path, Model(Block(mask), Block(mask))), *RULES) == []


def test_an_encoder_may_see_everything(tmp_path: Path) -> None:
    model = Model(Block("none"), Block("none"))

    def loss(number: int, _: object) -> torch.Tensor:
        tokens = sentences(number)
        hidden = torch.rand(tokens.shape) < 0.2
        return F.cross_entropy(model(tokens.masked_fill(hidden, 0))[hidden], tokens[hidden])

    assert findings(record(tmp_path, model, loss, steps=12), *RULES) == []


class Translator(nn.Module):
    """An encoder, and a decoder that looks at all of what it made."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 16)
        self.body = nn.Transformer(16, 2, 1, 1, 32, dropout=0.0, batch_first=True)
        self.head = nn.Linear(16, WORDS)

    def forward(self, source: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(start.shape[1])
        return self.head(self.body(self.words(source), self.words(start), tgt_mask=mask, tgt_is_causal=True))


def test_a_decoder_may_see_all_of_the_source(tmp_path: Path) -> None:
    model = Translator()

    def loss(number: int, _: object) -> torch.Tensor:
        tokens = sentences(number)
        return F.cross_entropy(model(sentences(number + 500, 8), tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())

    trial = record(tmp_path, model, loss, steps=12)
    assert "attention_future" in trial.node("model.body.decoder.layers.0.multihead_attn").quantities
    assert findings(trial, *RULES) == []


def test_a_causal_attention_without_any_mask_in_a_classifier(tmp_path: Path) -> None:
    model = Model(Block("none"), out=3)

    def loss(number: int, _: object) -> torch.Tensor:
        tokens = sentences(number)
        return F.cross_entropy(model(tokens).mean(1), tokens[:, 0] % 3)

    assert findings(record(tmp_path, model, loss, steps=12), *RULES) == []


def test_scores_so_large_that_queries_look_at_one_key(tmp_path: Path) -> None:
    found = {f.rule: f for f in findings(write(tmp_path, Model(Block("causal", scale=3000.0), Block("causal"))))}
    assert found["attention-collapse"].node == "model.blocks.0" == found["attention-logits"].node
    assert "as large as" in found["attention-logits"].summary


def test_scores_that_grow(tmp_path: Path) -> None:
    model = Model(Block("causal"))

    def train(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            model.blocks[0].project.weight[:32] *= 1.3

    finding = only(write(tmp_path, model, train=train, steps=20), "attention-logits")
    assert finding.level == "warning" and "grow from" in finding.summary and finding.step > 0


def test_sequences_of_padding_only(tmp_path: Path) -> None:
    class Reader(Model):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            x = self.words(tokens)
            return self.head(self.blocks[0].torch(x, x, x, key_padding_mask=tokens == 0)[0])

    model = Reader(Block("torch"))

    def loss(number: int, _: object) -> torch.Tensor:
        tokens = sentences(number) + 1
        tokens = tokens.clamp(max=WORDS - 1)
        if number == 4:
            tokens[3] = 0
        return F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())

    roots = [
        f for f in findings(record(tmp_path, model, loss, steps=8)) if f.rule in ("masked-attention", "non-finite")
    ]
    assert roots[0].rule == "masked-attention" and roots[0].step == 4 and roots[0].level == "error"
    assert [f.rule for f in roots[0].walk()][1:] == ["non-finite"]


def test_padding_that_is_masked_and_harmless(tmp_path: Path) -> None:
    class Reader(Model):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            x = self.words(tokens)
            return self.head(self.blocks[0].torch(x, x, x, key_padding_mask=tokens == 0)[0]).mean(1)

    model = Reader(Block("torch"))

    def loss(number: int, _: object) -> torch.Tensor:
        tokens = sentences(number)
        tokens[:, 6:] = 0
        return F.cross_entropy(model(tokens), tokens[:, 0])

    assert findings(record(tmp_path, model, loss, steps=8), *RULES) == []
