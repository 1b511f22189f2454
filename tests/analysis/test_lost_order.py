"""Words that come to an attention without their places; and all the ways in which places may be told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from support.short_runs import Batch, findings, only, record

LENGTH, WIDTH = 6, 8
Steps = Callable[["Reader", torch.Tensor], torch.Tensor]


class Reader(nn.Module):
    """Words, what is done to them, an attention, and what is read of it."""

    def __init__(self, before: Steps, attend: Steps, *, flat: bool = False) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(20, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.place = nn.Parameter(torch.randn(LENGTH, WIDTH))
        self.norm, self.conv = nn.LayerNorm(WIDTH), nn.Conv1d(WIDTH, WIDTH, 3, padding=1)
        self.gru = nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.join, self.mixed = nn.Linear(2 * WIDTH, WIDTH), nn.Linear(WIDTH, 3 * WIDTH)
        self.bias = nn.Parameter(torch.randn(LENGTH, LENGTH))
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.flat, self.last = flat, nn.Linear(LENGTH * WIDTH if flat else WIDTH, 4)
        self.before, self.attend = before, attend

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        self.tokens = tokens
        x = self.attend(self, self.before(self, self.words(tokens)))
        return self.last(x.flatten(1) if self.flat else x.mean(1))


def as_it_is(reader: Reader, x: torch.Tensor) -> torch.Tensor:
    return F.dropout(reader.norm(x) * WIDTH**0.5, 0.1)


def by_module(reader: Reader, x: torch.Tensor) -> torch.Tensor:
    return reader.attention(x, x, x)[0]


def padded(reader: Reader, x: torch.Tensor) -> torch.Tensor:
    return reader.attention(x, x, x, key_padding_mask=reader.tokens == 0)[0]


def by_function(reader: Reader, x: torch.Tensor) -> torch.Tensor:
    heads = (part.unflatten(2, (2, -1)).transpose(1, 2) for part in reader.mixed(x).chunk(3, dim=2))
    return F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)


def by_hand(reader: Reader, x: torch.Tensor) -> torch.Tensor:
    q, k, v = reader.mixed(x).split(WIDTH, dim=2)
    return (q @ k.transpose(1, 2) / WIDTH**0.5).softmax(2) @ v


def biased(reader: Reader, x: torch.Tensor) -> torch.Tensor:
    q, k, v = reader.mixed(x).split(WIDTH, dim=2)
    return (q @ k.transpose(1, 2) + reader.bias).softmax(2) @ v


def turned(reader: Reader, x: torch.Tensor) -> torch.Tensor:
    q, k, v = reader.mixed(x).split(WIDTH, dim=2)
    angle = torch.arange(LENGTH)[:, None] * torch.ones(WIDTH)
    return (q * angle.cos() @ (k * angle.sin()).transpose(1, 2)).softmax(2) @ v


def causal(reader: Reader, x: torch.Tensor) -> torch.Tensor:
    q, k, v = reader.mixed(x)[:, None].split(WIDTH, dim=3)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)[:, 0]


ORDERS: dict[str, Steps] = {
    "learned": lambda reader, x: x + reader.place,
    "looked up": lambda reader, x: x + reader.places(torch.arange(LENGTH)),
    "computed": lambda reader, x: x + torch.sin(torch.arange(LENGTH * WIDTH).view(LENGTH, WIDTH)),
    "joined": lambda reader, x: reader.join(torch.cat([x, reader.place.expand_as(x)], dim=2)),
    "recurrent": lambda reader, x: reader.gru(x)[0],
    "convolved": lambda reader, x: reader.conv(x.transpose(1, 2)).transpose(1, 2),
}


def texts(number: int) -> Batch:
    generator = torch.Generator().manual_seed(number)
    return torch.randint(20, (16, LENGTH), generator=generator), torch.randint(4, (16,), generator=generator)


def found(folder: Path, model: Reader) -> list[str]:
    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), y)

    return [finding.level for finding in findings(record(folder, model, loss, texts, steps=4), "lost-order")]


@pytest.mark.parametrize("attend", [by_module, padded, by_function, by_hand])
def test_words_without_places(attend: Steps, tmp_path: Path) -> None:
    assert found(tmp_path, Reader(as_it_is, attend)) == ["info"]


@pytest.mark.parametrize("order", ORDERS)
def test_places_that_words_bring_along(order: str, tmp_path: Path) -> None:
    assert found(tmp_path, Reader(ORDERS[order], by_module)) == []


@pytest.mark.parametrize("attend", [biased, turned, causal])
def test_places_that_an_attention_knows(attend: Steps, tmp_path: Path) -> None:
    assert found(tmp_path, Reader(as_it_is, attend)) == []


def test_places_that_are_read_side_by_side(tmp_path: Path) -> None:
    assert found(tmp_path, Reader(as_it_is, by_module, flat=True)) == []


def test_the_encoder_of_torch_and_its_place(tmp_path: Path) -> None:
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, batch_first=True)
    model = nn.Sequential(nn.Embedding(20, WIDTH), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))
    head = nn.Linear(WIDTH, 4)
    model.append(head)
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x).mean(1), y), texts, steps=4)
    finding = only(trial, "lost-order")
    assert finding.node == "model.1.layers.0.self_attn" and "model.0" in finding.nodes
    assert "positional" in finding.summary and finding.level == "info"


def test_a_set_of_numbers_is_no_text(tmp_path: Path) -> None:
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, batch_first=True)
    model = nn.Sequential(nn.Linear(3, WIDTH), layer, nn.Linear(WIDTH, 4))

    def points(number: int) -> Batch:
        generator = torch.Generator().manual_seed(number)
        return torch.randn(16, LENGTH, 3, generator=generator), torch.randint(4, (16,), generator=generator)

    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x).mean(1), y), points, steps=4)
    assert findings(trial, "lost-order") == []
