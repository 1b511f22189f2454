"""Training runs as courses teach them, in which nothing is wrong."""

from __future__ import annotations

from itertools import islice

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken import data
from stepscope.examples.broken.lab import VALIDATE_EVERY, Lab, descend

_Batch = tuple[torch.Tensor, ...]


class _Block(nn.Module):
    """Causal self-attention and two layers, each behind a norm and beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.heads = nn.LayerNorm(width), nn.LayerNorm(width), heads
        self.mixed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.mixed(self.norm1(x)).chunk(3, dim=2)
        query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        return x + self.feed(self.norm2(x))


class _Gpt(nn.Module):
    """A small language model of letters."""

    def __init__(self, letters: int, width: int = 40) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(letters, width), nn.Embedding(data.CONTEXT, width)
        self.blocks = nn.Sequential(_Block(width, 4), _Block(width, 4))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, letters, bias=False)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        x = self.embed(text) + self.place(torch.arange(text.shape[1]))
        return self.head(self.norm(self.blocks(x)))


def characters_with_a_warm_up(lab: Lab) -> None:
    """A causal transformer with a warm-up, a cosine, clipped gradients, and no weight decay for norms and biases."""
    _, letters = data.text()
    model = _Gpt(letters)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=5e-3, betas=(0.9, 0.98))
    rise = torch.optim.lr_scheduler.LinearLR(optimizer, 0.05, total_iters=15)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 135, eta_min=2e-4)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, fall], [15])
    lab.recorder.watch(model, optimizer)
    batches = data.characters(16)

    def loss_of(text: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(text).flatten(0, 1), following.flatten())

    after = lab.validating(model, lambda number: batches(90_000 + number), loss_of)
    for number in range(150):
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            loss_of(*batches(number)).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        schedule.step()
        after(number)


def _nuclei(number: int) -> _Batch:
    """Noisy pictures ``(12, 1, 20, 20)`` of two bright nuclei, and where these are."""
    generator = torch.Generator().manual_seed(number)
    grid = torch.arange(20.0)
    place = 4 + 12 * torch.rand(2, 12, 2, 1, 1, generator=generator)
    inside = ((grid - place[0]).square() + (grid[:, None] - place[1]).square() < 9).any(1).float()
    return (2 * inside - 0.5 + 0.6 * torch.randn(12, 20, 20, generator=generator))[:, None], inside[:, None]


def _dice(scores: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    chances = scores.sigmoid()
    common = (chances * truth).sum((1, 2, 3))
    return 1 - ((2 * common + 1) / (chances.sum((1, 2, 3)) + truth.sum((1, 2, 3)) + 1)).mean()


def nuclei_by_entropy_and_dice(lab: Lab) -> None:
    """A segmentation by dilated convolutions, with the sum of two losses, and one cycle of the learning rate."""
    layers: list[nn.Module] = []
    for inputs, dilation in ((1, 1), (12, 2), (12, 3)):
        convolution = nn.Conv2d(inputs, 12, 3, padding=dilation, dilation=dilation, bias=False)
        layers += [convolution, nn.BatchNorm2d(12), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Conv2d(12, 1, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=151)

    def loss_of(picture: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        scores = model(picture)
        return F.binary_cross_entropy_with_logits(scores, truth) + _dice(scores, truth)

    validate = lab.validating(model, lambda number: _nuclei(90_000 + number), loss_of)

    def after(number: int) -> None:
        schedule.step()
        validate(number)

    lab.fit(model, _nuclei, loss_of, optimizer, after=after)


def _pulls(number: int) -> torch.Tensor:
    """What is known of 128 visitors ``(128, 6)``."""
    return torch.randn(128, 6, generator=torch.Generator().manual_seed(number))


class _ActorCritic(nn.Module):
    """Which of four pages to show, and what that will bring."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 48), nn.Tanh())
        self.actor, self.critic = nn.Linear(48, 4), nn.Linear(48, 1)

    def forward(self, visitor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.body(visitor)
        return self.actor(hidden), self.critic(hidden).squeeze(1)


def pages_chosen_by_actor_and_critic(lab: Lab) -> None:
    """A policy gradient with a critic, advantages that are detached, and a bonus for entropy."""
    likes = torch.randn(6, 4, generator=torch.Generator().manual_seed(6))
    model = _ActorCritic()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    lab.recorder.watch(model, optimizer)
    for number in range(180):
        visitor = _pulls(number)
        with lab.recorder.step("train") as step:
            scores, value = model(visitor)
            policy = torch.distributions.Categorical(logits=scores)
            page = policy.sample()
            noise = 0.3 * torch.randn(128, generator=torch.Generator().manual_seed(5000 + number))
            reward = (visitor @ likes).gather(1, page[:, None])[:, 0] / 2 + noise
            advantage = (reward - value).detach()
            chosen = -(policy.log_prob(page) * advantage).mean()
            loss = chosen + 0.5 * F.mse_loss(value, reward) - 0.01 * policy.entropy().mean()
            descend(loss, optimizer)
            step.record("reward", reward.mean())


class _Encoder(nn.Module):
    """Convolutions, and a unit vector."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.GroupNorm(4, 16), nn.ReLU(), nn.Flatten(),
        )  # fmt: skip
        self.project = nn.Sequential(nn.Linear(256, 48), nn.ReLU(), nn.Linear(48, 16))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.project(self.convs(pictures)), dim=1)


def _views(pictures: torch.Tensor) -> torch.Tensor:
    """Pictures moved by a pixel at most, a little louder or fainter, and noisy."""
    moved = F.pad(pictures, (1, 1, 1, 1), value=float(pictures.min()))
    corners = torch.randint(3, (len(moved), 2)).tolist()
    moved = torch.stack([each[:, y : y + 8, x : x + 8] for each, (y, x) in zip(moved, corners, strict=True)])
    return moved * (0.8 + 0.4 * torch.rand(len(moved), 1, 1, 1)) + 0.2 * torch.randn_like(moved)


def digits_by_contrast(lab: Lab) -> None:
    """Two views of each digit shall have the same code, and others another one, with a temperature of a fifth."""
    model = _Encoder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    lab.recorder.watch(model, optimizer)
    loader = DataLoader(TensorDataset(*data.images()), 64, shuffle=True, drop_last=True)
    pixels, _ = data.unseen_pixels()
    unseen = pixels[:64].view(-1, 1, 8, 8)

    def loss_of(pictures: torch.Tensor) -> torch.Tensor:
        likeness = model(_views(pictures)) @ model(_views(pictures)).T / 0.2
        same = torch.arange(len(pictures))
        return (F.cross_entropy(likeness, same) + F.cross_entropy(likeness.T, same)) / 2

    after = lab.validating(model, lambda _: (unseen,), loss_of)
    number = 0
    for _ in range(7):
        for pictures, _ in loader:
            with lab.recorder.step("train"):
                descend(loss_of(pictures), optimizer)
            after(number)
            number += 1


def tumours_in_small_batches(lab: Lab) -> None:
    """Tumours are judged by batches of eight, four of which make a step: their losses are divided by four."""
    x, y = data.tumours()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(7))
    train, unseen = TensorDataset(x[order[:450]], y[order[:450]]), (x[order[450:]], y[order[450:]])
    model = nn.Sequential(nn.Linear(30, 24), nn.SiLU(), nn.Dropout(0.3), nn.Linear(24, 1), nn.Flatten(0))
    criterion = nn.BCEWithLogitsLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
    lab.recorder.watch(model, optimizer)
    number = 0
    for _ in range(9):
        small = iter(DataLoader(train, 8, shuffle=True, drop_last=True))
        while len(few := list(islice(small, 4))) == 4:
            with lab.recorder.step("train"):
                optimizer.zero_grad()
                for rows, labels in few:
                    (criterion(model(rows), labels) / 4).backward()
                optimizer.step()
            number += 1
            if number % VALIDATE_EVERY == 0:
                model.eval()
                with torch.no_grad(), lab.recorder.step("validation") as step:
                    step.record("loss", criterion(model(unseen[0]), unseen[1]), type="loss")
                model.train()
        schedule.step()
