"""A transformer of GPT-2 small's size: 12 blocks, 768 wide, 12 heads, 50,257 tokens, weights of in- and output tied."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from workloads import Probe, Training

WIDTH, HEADS, BLOCKS, TOKENS, CONTEXT = 768, 12, 12, 50257, 1024


class Attention(nn.Module):
    """Causal self-attention by torch's fused kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.query_key_value = nn.Linear(WIDTH, 3 * WIDTH)
        self.project = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, time, _ = x.shape
        heads = self.query_key_value(x).view(batch, time, 3, HEADS, WIDTH // HEADS)
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = self.project(mixed.transpose(1, 2).reshape(batch, time, WIDTH))
        return x


class Block(nn.Module):
    """Attention and a layer four times as wide, each behind a norm and beside the residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_attention, self.norm_mlp = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = Attention()
        self.widen, self.narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm_attention(x))
        x = x + self.narrow(F.gelu(self.widen(self.norm_mlp(x))))
        return x


class GPT(nn.Module):
    """Tokens ``(batch, time)`` to logits ``(batch, time, TOKENS)``."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_token, self.embed_place = nn.Embedding(TOKENS, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.norm = nn.LayerNorm(WIDTH)
        self.predict = nn.Linear(WIDTH, TOKENS, bias=False)
        self.predict.weight = self.embed_token.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.blocks(self.embed_token(tokens) + self.embed_place(places))
        x = self.predict(self.norm(x))
        return x


def gpt_training(device: str, batch: int = 8, time: int = CONTEXT) -> Training:
    """Training in bfloat16 autocast with fused AdamW."""
    torch.manual_seed(0)
    model = GPT().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    tokens = torch.randint(TOKENS, (batch, time + 1), device=device)

    def loss(probe: Probe) -> torch.Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            logits = model(tokens[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())

    return Training(model, optimizer, loss, {"model": model}, batch)
