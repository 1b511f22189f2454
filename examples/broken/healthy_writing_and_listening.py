"""Training runs on words, sounds and series as official examples and tutorials write them; nothing is wrong in them."""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from stepscope.examples.broken import data
from stepscope.examples.broken.lab import Lab

_Batch = tuple[torch.Tensor, ...]


class _CausalAttention(nn.Module):
    """Several heads in one linear layer, as in nanoGPT."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.resid_dropout, self.heads = nn.Dropout(0.1), heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.c_attn(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=0.1 if self.training else 0.0)
        return self.resid_dropout(self.c_proj(y.transpose(1, 2).flatten(2)))


class _GPT(nn.Module):
    """Two blocks, tied embeddings, and residual projections that begin smaller."""

    def __init__(self, vocabulary: int, width: int = 32, blocks: int = 2) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(data.CONTEXT, width)
        self.drop = nn.Dropout(0.1)
        self.attn = nn.ModuleList(_CausalAttention(width, 4) for _ in range(blocks))
        self.mlp = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(0.1))
            for _ in range(blocks)
        )
        self.ln = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * blocks + 1))
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.lm_head.weight = self.wte.weight
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                deep = name.endswith(("c_proj.weight", "2.weight")) and not name.startswith("ln")
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * blocks) if deep else 0.02)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.drop(self.wte(ids) + self.wpe.weight[: ids.shape[1]])
        for block, (attn, mlp) in enumerate(zip(self.attn, self.mlp, strict=True)):
            x = x + attn(self.ln[2 * block](x))
            x = x + mlp(self.ln[2 * block + 1](x))
        return self.lm_head(self.ln[-1](x))


def small_gpt_with_accumulation(lab: Lab) -> None:
    """A GPT by nanoGPT's train.py: two groups of weight decay, warm-up and cosine, bfloat16, accumulation, clipping.

    Source: karpathy/nanoGPT, train.py.
    """
    _, count = data.text()
    model, batches = _GPT(count), data.characters(8)
    groups: list[dict[str, object]] = [
        {"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=3e-3, betas=(0.9, 0.95))
    lab.recorder.watch(model, optimizer)

    def loss_of(ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(ids)
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    best = math.inf
    for number in range(lab.steps):
        ratio = max(0.0, (number - 15) / (lab.steps - 15))
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (number + 1) / 16 if number < 15 else 3e-4 + 1.35e-3 * (1 + math.cos(math.pi * ratio))
        with lab.recorder.step("train"):
            for micro in range(2):
                loss = loss_of(*batches(2 * number + micro)) / 2
                loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if number % 30 == 29:
            model.eval()
            with torch.no_grad(), lab.recorder.step("validation") as step:
                held_out = loss_of(*batches(50_000 + number))
                step.record("loss", held_out, type="loss")
            best = min(best, held_out.item())
            model.train()


class _Tagger(nn.Module):
    """Embeddings with padding, two directions of an LSTM over packed sentences, and tags."""

    def __init__(self, words: int = 40, tags: int = 5, width: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width, padding_idx=0)
        self.dropout = nn.Dropout(0.25)
        self.lstm = nn.LSTM(width, width, 2, bidirectional=True, batch_first=True, dropout=0.25)
        self.fc = nn.Linear(2 * width, tags)

    def forward(self, words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(
            self.dropout(self.embedding(words)), lengths, batch_first=True, enforce_sorted=False
        )
        states, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=words.shape[1])
        return self.fc(self.dropout(states))


def _sentences(number: int) -> _Batch:
    """Sentences ``(32, 14)`` of different length, their lengths, and tags that a word and the one before decide."""
    generator = torch.Generator().manual_seed(number)
    lengths = torch.randint(4, 15, (32,), generator=generator)
    real = torch.arange(14) < lengths[:, None]
    words = torch.randint(1, 40, (32, 14), generator=generator) * real
    tags = torch.where(words % 4 == 0, 2 + (F.pad(words[:, :-1], (1, 0)) > 20).long(), 1 + 3 * (words % 9 == 0).long())
    return words, lengths, tags * real


def tags_of_packed_sentences(lab: Lab) -> None:
    """A part-of-speech tagger with packed sentences, padding that no loss counts, and the best state kept.

    Source: bentrevett/pytorch-pos-tagging, notebook 1; PyTorch's tutorial on sequence models.
    """
    model = _Tagger()
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=2)
    criterion = nn.CrossEntropyLoss(ignore_index=0)
    lab.recorder.watch(model, optimizer)
    best, kept = math.inf, copy.deepcopy(model.state_dict())
    for number in range(lab.steps):
        words, lengths, tags = _sentences(number)
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            loss = criterion(model(words, lengths).flatten(0, 1), tags.flatten())
            loss.backward()
            optimizer.step()
        if number % 25 == 24:
            model.eval()
            words, lengths, tags = _sentences(10_000 + number)
            with torch.no_grad(), lab.recorder.step("validation") as step:
                judged = criterion(model(words, lengths).flatten(0, 1), tags.flatten())
                step.record("loss", judged, type="loss")
            plateau.step(judged.item())
            if judged.item() < best:
                best, kept = judged.item(), copy.deepcopy(model.state_dict())
            model.train()
    model.load_state_dict(kept)


class _Positions(nn.Module):
    """Sines and cosines of the place, and dropout."""

    def __init__(self, width: int, longest: int = 32) -> None:
        super().__init__()
        pace = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
        angle = torch.arange(longest)[:, None] * pace
        self.register_buffer("table", torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1))
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout(x + self.get_buffer("table")[: x.shape[1]])


class _Translator(nn.Module):
    """nn.Transformer between scaled embeddings and a generator."""

    def __init__(self, words: int = 16, width: int = 32) -> None:
        super().__init__()
        self.src_tok_emb, self.tgt_tok_emb = nn.Embedding(words, width), nn.Embedding(words, width)
        self.positional_encoding = _Positions(width)
        self.transformer = nn.Transformer(width, 4, 1, 1, 64, 0.1, batch_first=True)
        self.generator = nn.Linear(width, words)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, src: torch.Tensor, tgt: torch.Tensor) -> torch.Tensor:
        future = torch.ones(tgt.shape[1], tgt.shape[1], dtype=torch.bool).triu(1)
        read = self.positional_encoding(self.src_tok_emb(src) * 32**0.5)
        written = self.positional_encoding(self.tgt_tok_emb(tgt) * 32**0.5)
        return self.generator(
            self.transformer(
                read, written, tgt_mask=future, src_key_padding_mask=src == 1, tgt_key_padding_mask=tgt == 1,
                memory_key_padding_mask=src == 1,
            )
        )  # fmt: skip


def _pairs(number: int) -> _Batch:
    """Sentences of 3 to 8 words from 4 to 15, padded by 1, and their translations between 2 and 3."""
    generator = torch.Generator().manual_seed(number)
    length = torch.randint(3, 9, (32, 1), generator=generator)
    words = torch.randint(12, (32, 8), generator=generator)
    place = torch.arange(8)
    target = F.pad(4 + (5 * words + 1) % 12, (0, 2), value=1).masked_fill(torch.arange(10) > length, 1)
    target = target.scatter(1, length, 3)
    return (4 + words).masked_fill(place >= length, 1), F.pad(target[:, :9], (1, 0), value=2)


def translation_with_label_smoothing(lab: Lab) -> None:
    """The language translation tutorial with Noam's schedule and smoothed labels that leave padding out.

    Source: PyTorch's tutorial on translation with nn.Transformer; The Annotated Transformer.
    """
    model = _Translator()
    optimizer = torch.optim.Adam(model.parameters(), 1.0, betas=(0.9, 0.98), eps=1e-9)

    def noam(step: int) -> float:
        return 0.5 * 32**-0.5 * min((step + 1) ** -0.5, (step + 1) * 60**-1.5)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, noam)
    criterion = nn.CrossEntropyLoss(ignore_index=1, label_smoothing=0.1)

    def loss_of(src: torch.Tensor, tgt: torch.Tensor) -> torch.Tensor:
        return criterion(model(src, tgt[:, :-1]).flatten(0, 1), tgt[:, 1:].flatten())

    def after(number: int) -> None:
        schedule.step()
        model.eval()
        lab.validate(lambda number: _pairs(10_000 + number), loss_of, number)
        model.train()

    lab.fit(model, _pairs, loss_of, optimizer, after=after)


class _Commands(nn.Module):
    """One-dimensional convolutions on raw sound, each followed by batch norm, and a pooled linear layer."""

    def __init__(self, channels: int = 12, commands: int = 6) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv1d(1, channels, 16, stride=4), nn.BatchNorm1d(channels)
        self.conv2, self.bn2 = nn.Conv1d(channels, channels, 3), nn.BatchNorm1d(channels)
        self.conv3, self.bn3 = nn.Conv1d(channels, 2 * channels, 3), nn.BatchNorm1d(2 * channels)
        self.pool, self.fc1 = nn.MaxPool1d(2), nn.Linear(2 * channels, commands)

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        x = self.pool(F.relu(self.bn1(self.conv1(sound))))
        x = self.pool(F.relu(self.bn2(self.conv2(x))))
        x = F.relu(self.bn3(self.conv3(x)))
        return F.log_softmax(self.fc1(x.mean(2)), dim=1)


def _spoken(number: int) -> _Batch:
    """Sounds ``(48, 1, 256)`` of one of six pitches that rise or fall, in noise, and which it was."""
    generator = torch.Generator().manual_seed(number)
    command = torch.randint(6, (48,), generator=generator)
    time = torch.linspace(0, 1, 256)
    pitch = (14 + 12 * (command % 3))[:, None] * (1 + 0.4 * (2 * (command // 3) - 1)[:, None] * time)
    loud = 0.5 + torch.rand(48, 1, generator=generator)
    wave = loud * (2 * math.pi * (pitch * time + torch.rand(48, 1, generator=generator))).sin()
    return (wave + 0.3 * torch.randn(wave.shape, generator=generator))[:, None], command


def spoken_commands(lab: Lab) -> None:
    """A classifier of raw sounds with weight decay, shifted and noisy copies, and a rate that falls by steps.

    Source: PyTorch's tutorial on speech command classification with torchaudio.
    """
    model = _Commands()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=60, gamma=0.3)
    shifts = torch.Generator().manual_seed(5)

    def batches(number: int) -> _Batch:
        sound, command = _spoken(number)
        return sound.roll(int(torch.randint(-20, 21, (1,), generator=shifts)), 2), command

    def after(number: int) -> None:
        scheduler.step()
        model.eval()
        lab.validate(lambda number: _spoken(10_000 + number), lambda x, y: F.nll_loss(model(x), y), number)
        model.train()

    lab.fit(model, batches, lambda sound, command: F.nll_loss(model(sound), command), optimizer, after=after)


class _AutoRegressive(nn.Module):
    """A GRU that says mean and spread of the next value of a series, which it divides by its own mean (DeepAR)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.series = nn.Embedding(6, 4)
        self.rnn = nn.GRU(5, width, 2, batch_first=True, dropout=0.1)
        self.mean, self.spread = nn.Linear(width, 1), nn.Linear(width, 1)

    def forward(self, values: torch.Tensor, series: torch.Tensor) -> torch.distributions.Normal:
        kind = self.series(series)[:, None].expand(-1, values.shape[1], -1)
        states, _ = self.rnn(torch.cat([values[:, :, None], kind], dim=2))
        return torch.distributions.Normal(self.mean(states)[:, :, 0], F.softplus(self.spread(states)[:, :, 0]) + 1e-3)


def _seasons(number: int) -> _Batch:
    """Windows ``(32, 37)`` of six series with seasons of their own, divided by their mean, and which series it is."""
    generator = torch.Generator().manual_seed(number)
    series = torch.randint(6, (32,), generator=generator)
    time = torch.randint(500, (32, 1), generator=generator) + torch.arange(37)
    level = 10.0 * (1 + series)[:, None]
    season = 0.5 * (2 * math.pi * time / (6 + 2 * series)[:, None]).sin()
    values = level * (1 + season + 0.05 * torch.randn(32, 37, generator=generator))
    return values / values[:, :24].mean(1, keepdim=True) - 1, series


def chances_of_the_next_value(lab: Lab) -> None:
    """A recurrent forecaster trained by likelihood, with clipping and one cycle of the learning rate.

    Source: pytorch-forecasting's tutorial on DeepAR; GluonTS, DeepAR estimator.
    """
    model = _AutoRegressive()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=1e-2)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=lab.steps)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        values, series = _seasons(number)
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            loss = -model(values[:, :-1], series).log_prob(values[:, 1:]).mean()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        cycle.step()
        if number % 30 == 29:
            model.eval()
            values, series = _seasons(10_000 + number)
            with torch.no_grad(), lab.recorder.step("validation") as step:
                step.record("loss", -model(values[:, :-1], series).log_prob(values[:, 1:]).mean(), type="loss")
            model.train()
