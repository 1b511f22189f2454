"""Training runs of the same trades as the mended ones, in which nothing is wrong."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import lr_scheduler

from stepscope.examples.broken import data
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import mlp

_Batch = tuple[torch.Tensor, ...]


def letters_with_accumulated_batches(lab: Lab) -> None:
    """A recurrent net learns letters; three batches make one clipped update, at a rate with a warm-up."""
    _, kinds = data.text()
    model = nn.ModuleDict({
        "embed": nn.Embedding(kinds, 32), "rnn": nn.LSTM(32, 64, batch_first=True), "head": nn.Linear(64, kinds)
    })  # fmt: skip
    batches = data.characters(12)
    optimizer = torch.optim.AdamW(model.parameters(), lr=8e-3)
    scheduler = lr_scheduler.LambdaLR(optimizer, lambda update: min(1.0, (update + 1) / 8))
    lab.recorder.watch(model, optimizer)
    for number in range(180):
        text, following = batches(number)
        with lab.recorder.step("train"):
            scores = model["head"](model["rnn"](model["embed"](text))[0])
            loss = F.cross_entropy(scores.flatten(0, 1), following.flatten()) / 3
            loss.backward()
            if number % 3 == 2:
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
                scheduler.step()


def _walks(number: int) -> _Batch:
    """States ``(64, 3)``, one of two pushes, rewards for being near the middle, and the states that follow."""
    generator = torch.Generator().manual_seed(number)
    state, push = torch.randn(64, 3, generator=generator), torch.randint(2, (64,), generator=generator)
    following = 0.8 * state + (0.6 * push - 0.3)[:, None] + 0.2 * torch.randn(64, 3, generator=generator)
    return state, push, 1 - following.pow(2).mean(1), following


def walks_by_a_double_q_network(lab: Lab) -> None:
    """Two pushes are valued by double Q-learning, with a target network that follows slowly."""
    online = mlp(3, 48, 48, 2)
    target = copy.deepcopy(online).requires_grad_(requires_grad=False)
    optimizer = torch.optim.Adam(online.parameters(), lr=3e-3)
    lab.recorder.watch(online, optimizer)
    for number in range(lab.steps):
        state, push, reward, following = _walks(number)
        with lab.recorder.step("train"):
            with torch.no_grad():
                best = online(following).argmax(1, keepdim=True)
                wanted = reward + 0.7 * target(following).gather(1, best)[:, 0]
            descend(F.smooth_l1_loss(online(state).gather(1, push[:, None])[:, 0], wanted), optimizer)
        with torch.no_grad():
            for old, new in zip(target.parameters(), online.parameters(), strict=True):
                old.lerp_(new, 0.1)


def _blots(number: int) -> _Batch:
    """Noisy pictures ``(8, 1, 12, 12)`` of a round blot, and which of their dots belong to it."""
    generator = torch.Generator().manual_seed(number)
    grid = torch.stack(torch.meshgrid(torch.arange(12), torch.arange(12), indexing="ij")).float()
    middle = 3 + 6 * torch.rand(8, 2, 1, 1, generator=generator)
    inside = ((grid - middle).pow(2).sum(1, keepdim=True) < 6).float()
    return 2 * inside - 0.3 + 0.6 * torch.randn(8, 1, 12, 12, generator=generator), inside


def blots_with_a_schedule_for_epochs(lab: Lab) -> None:
    """Blots are cut out by convolutions; the rate falls along a cosine, epoch by epoch."""
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 1, 1),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    scheduler = lr_scheduler.CosineAnnealingLR(optimizer, T_max=8)
    criterion = nn.BCEWithLogitsLoss()
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda number: _blots(9000 + number), lambda x, y: criterion(model(x), y))
    for epoch in range(8):
        for number in range(15 * epoch, 15 * epoch + 15):
            picture, inside = _blots(number)
            with lab.recorder.step("train"):
                descend(criterion(model(picture), inside), optimizer)
            after(number)
        scheduler.step()


def tumours_in_mixed_precision(lab: Lab) -> None:
    """Tumours are told apart in mixed precision: the gradients are unscaled, then clipped."""
    x, y = data.tumours()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(3))
    x, y = x[order], y[order].long()
    model = nn.Sequential(nn.Linear(30, 24), nn.ReLU(), nn.Dropout(0.3), nn.Linear(24, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9, weight_decay=1e-2)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda _: (x[420:], y[420:]), lambda x, y: F.cross_entropy(model(x), y))
    batches = data.draw((x[:420], y[:420]), 48)
    for number in range(120):
        rows, labels = batches(number)
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = F.cross_entropy(model(rows), labels)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
        after(number)


def _phrases(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Phrases of a word from 1 to 11 and its followers, each three on ``(32, 12)``, padded with 0, and their masks."""
    generator = torch.Generator().manual_seed(number)
    first = torch.randint(11, (32, 1), generator=generator)
    mask = torch.arange(12) < torch.randint(4, 13, (32, 1), generator=generator)
    return (1 + (first + 3 * torch.arange(12)) % 11) * mask, mask


def phrases_padded_and_masked(lab: Lab) -> None:
    """Phrases of several lengths are continued by a transformer; their padding is neither seen nor learned."""
    model = nn.ModuleDict({
        "words": nn.Embedding(12, 32, padding_idx=0), "places": nn.Embedding(11, 32),
        "block": nn.TransformerEncoderLayer(32, 4, 64, 0.1, batch_first=True, norm_first=True),
        "head": nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 12)),
    })  # fmt: skip
    causal = torch.ones(11, 11, dtype=torch.bool).triu(1)

    def loss_of(words: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = model["words"](words[:, :-1]) + model["places"].weight
        scores = model["head"](model["block"](x, causal, ~mask[:, :-1]))
        labels = words[:, 1:].masked_fill(~mask[:, 1:], -100)
        return F.cross_entropy(scores.flatten(0, 1), labels.flatten())

    after = lab.validating(model, lambda number: _phrases(9000 + number), loss_of)
    lab.fit(model, _phrases, loss_of, torch.optim.AdamW(model.parameters(), lr=2e-3), after=after)
