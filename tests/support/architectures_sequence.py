"""Small networks on sequences: recurrent ones and transformers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from support.training import Training, simple

WORDS = 11


class PackedLSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 4, padding_idx=0)
        self.lstm = nn.LSTM(4, 5, num_layers=2, bidirectional=True, batch_first=True, dropout=0.1)
        self.head = nn.Linear(10, 2)

    def forward(self, words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(self.embed(words), lengths, batch_first=True, enforce_sorted=False)
        states, _ = self.lstm(packed)
        padded, _ = pad_packed_sequence(states, batch_first=True)
        return self.head(padded.sum(1))


def lstm_with_packed_sequences() -> Training:
    model = PackedLSTM()

    def loss() -> torch.Tensor:
        words, lengths = torch.randint(1, WORDS, (4, 6)), torch.randint(1, 7, (4,))
        return F.cross_entropy(model(words, lengths), torch.randint(2, (4,)))

    return simple(model, loss)


def gru_with_truncated_backpropagation() -> Training:
    cell, head = nn.GRUCell(3, 5), nn.Linear(5, 1)
    model = nn.ModuleDict({"cell": cell, "head": head})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(number: int) -> list[torch.Tensor]:
        hidden, losses = torch.zeros(4, 5), []
        for _ in range(3):
            optimizer.zero_grad()
            hidden = hidden.detach()
            for _ in range(2):
                hidden = cell(torch.randn(4, 3), hidden)
            losses.append(head(hidden).square().mean())
            losses[-1].backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
        return losses

    return Training({"model": model}, {"optimizer": optimizer}, step)


class SequenceToSequence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.encoder = nn.Embedding(WORDS, 6), nn.GRU(6, 6, batch_first=True)
        self.decoder, self.head = nn.GRUCell(6, 6), nn.Linear(12, WORDS)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        memory, last = self.encoder(self.embed(source))
        state, answers = last[0], []
        for word in target.T:
            state = self.decoder(self.embed(word), state)
            attention = torch.bmm(memory, state.unsqueeze(2)).softmax(1)
            answers.append(self.head(torch.cat([state, (attention * memory).sum(1)], dim=1)))
        return torch.stack(answers, dim=1)


def seq2seq_with_attention() -> Training:
    model = SequenceToSequence()

    def loss() -> torch.Tensor:
        target = torch.randint(WORDS, (3, 4))
        return F.cross_entropy(model(torch.randint(WORDS, (3, 5)), target).flatten(0, 1), target.flatten())

    return simple(model, loss)


def transformer_encoder() -> Training:
    """Trains, and evaluates in between, where torch has a fast path of its own."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.TransformerEncoder(layer, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

    def step(number: int) -> list[torch.Tensor]:
        optimizer.zero_grad()
        loss = model(torch.randn(4, 5, 8)).square().mean()
        loss.backward()
        optimizer.step()
        model.eval()
        with torch.no_grad():
            padding = torch.arange(5) >= torch.tensor([[5], [3], [2], [4]])
            checked = model(torch.randn(4, 5, 8), src_key_padding_mask=padding)
            attended, _ = layer.self_attn(*[torch.randn(4, 5, 8)] * 3, need_weights=False)
        model.train()
        return [loss, checked, attended]

    return Training({"model": model}, {"optimizer": optimizer}, step)


class CausalBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first_norm, self.second_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width), nn.Dropout(0.1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, time, width = x.shape
        split = (
            part.view(batch, time, self.heads, -1).transpose(1, 2)
            for part in self.project(self.first_norm(x)).chunk(3, -1)
        )
        mixed = F.scaled_dot_product_attention(*split, is_causal=True)
        x = x + self.join(mixed.transpose(1, 2).reshape(batch, time, width))
        return x + self.feed(self.second_norm(x))


class GPT(nn.Module):
    """Decoder-only, with tied embeddings, as GPT-2."""

    def __init__(self, width: int = 8, layers: int = 2) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, width), nn.Embedding(16, width)
        self.blocks = nn.ModuleList(CausalBlock(width, 2) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, WORDS, bias=False)
        self.head.weight = self.words.weight

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        x = self.words(words) + self.places(torch.arange(words.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def gpt_with_tied_embeddings() -> Training:
    model = GPT()

    def loss() -> torch.Tensor:
        words = torch.randint(WORDS, (3, 7))
        return F.cross_entropy(model(words[:, :-1]).flatten(0, 1), words[:, 1:].flatten())

    return simple(model, loss, torch.optim.AdamW(model.parameters(), lr=1e-2, amsgrad=True))


class Bert(nn.Module):
    """Bidirectional, with masked words, token types and a pooler."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.words, self.types, self.places = nn.Embedding(WORDS, width), nn.Embedding(2, width), nn.Embedding(8, width)
        self.norm, self.layer = (
            nn.LayerNorm(width),
            nn.TransformerEncoderLayer(width, 2, 16, 0.1, "gelu", batch_first=True),
        )
        self.pooler, self.predict = nn.Linear(width, width), nn.Linear(width, WORDS)

    def forward(
        self, *, words: torch.Tensor, types: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.norm(self.words(words) + self.types(types) + self.places.weight[: words.shape[1]])
        x = self.layer(x, src_key_padding_mask=~mask)
        return self.predict(x), self.pooler(x[:, 0]).tanh()


def bert() -> Training:
    model = Bert()

    def loss() -> torch.Tensor:
        words, mask = torch.randint(WORDS, (4, 6)), torch.arange(6) < torch.randint(2, 7, (4, 1))
        labels = torch.where(torch.rand(4, 6) < 0.5, words, -100)
        labels[:, 0] = 1
        logits, pooled = model(words=words, types=torch.randint(2, (4, 6)), mask=mask)
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100) + pooled.square().mean()

    return simple(model, loss)


class RelativeBias(nn.Module):
    """Attention over a memory with a learned bias by distance, without scaling, as in T5."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.bias = nn.Embedding(5, 1)

    def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        distance = (torch.arange(x.shape[1])[:, None] - torch.arange(memory.shape[1])).clamp(-2, 2) + 2
        scores = self.query(x) @ self.key(memory).mT + self.bias(distance)[..., 0]
        return scores.softmax(-1) @ self.value(memory)


class T5(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.shared = nn.Embedding(WORDS, width)
        self.encode, self.decode, self.cross = (RelativeBias(width) for _ in range(3))
        self.norm, self.head = nn.RMSNorm(width), nn.Linear(width, WORDS, bias=False)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        memory = self.shared(source)
        memory = memory + self.encode(self.norm(memory), memory)
        x = self.shared(target)
        x = x + self.decode(self.norm(x), x)
        return self.head(self.norm(x + self.cross(x, memory)))


def t5() -> Training:
    model = T5()

    def loss() -> torch.Tensor:
        target = torch.randint(WORDS, (3, 4))
        return F.cross_entropy(model(torch.randint(WORDS, (3, 6)), target).mT, target)

    return simple(model, loss, torch.optim.Adafactor(model.parameters(), lr=1e-2))


def fused_layers_as_roots() -> Training:
    """An encoder layer and an attention, watched themselves, in evaluation between training steps."""
    layer, attention = (
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        nn.MultiheadAttention(8, 2, batch_first=True),
    )
    models = nn.ModuleList([layer, attention])
    optimizer = torch.optim.SGD(models.parameters(), lr=0.1)

    def step(number: int) -> list[torch.Tensor]:
        models.train(number % 2 == 0)
        with torch.set_grad_enabled(number % 2 == 0):
            x = layer(torch.randn(4, 5, 8))
            loss = attention(x, x, x)[0].square().mean()
        if number % 2 == 0:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return [loss]

    return Training({"layer": layer, "attention": attention}, {"optimizer": optimizer}, step)
