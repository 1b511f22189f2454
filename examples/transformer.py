"""A small character-level transformer, written out so that every step of it is a module or a line to point at."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn


class CausalAttention(nn.Module):
    """Self-attention that looks at earlier characters only: ``(batch, time, width)`` to the same shape."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, time, width = x.shape
        split = self.query_key_value(x).view(batch, time, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        scores = query @ key.transpose(-2, -1) / math.sqrt(width // self.heads)
        future = torch.ones(time, time, dtype=torch.bool, device=x.device).triu(1)
        attention = scores.masked_fill(future, -math.inf).softmax(-1)
        x = self.project((attention @ value).transpose(1, 2).reshape(batch, time, width))
        return x


class MLP(nn.Module):
    """Four times as wide and back, at each place by itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.gelu(self.widen(x))
        x = self.narrow(x)
        return x


class Block(nn.Module):
    """Attention and MLP, each behind a layer norm and added to the residual stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = CausalAttention(width, heads)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = MLP(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm_attention(x))
        x = x + self.mlp(self.norm_mlp(x))
        return x


class CharTransformer(nn.Module):
    """Characters ``(batch, time)`` as integers to logits ``(batch, time, characters)`` of the next ones."""

    def __init__(self, characters: int, *, context: int, width: int = 128, blocks: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.embed_character = nn.Embedding(characters, width)
        self.embed_place = nn.Embedding(context, width)
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(blocks)])
        self.norm = nn.LayerNorm(width)
        self.predict = nn.Linear(width, characters)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        places = torch.arange(text.shape[1], device=text.device)
        x: torch.Tensor = self.embed_character(text) + self.embed_place(places)
        for block in self.blocks:
            x = block(x)
        x = self.predict(self.norm(x))
        return x
