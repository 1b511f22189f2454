"""Mistakes of the pipeline around a net, drawn from reports: schedules, precision, and what is frozen."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Batches, Lab, descend

PARTS = 4
"""So many small batches are added up before the weights change."""


class _Cosine:
    """The rate rises for ``warm_up`` steps, and falls as a cosine until ``steps``."""

    def __init__(self, optimizer: torch.optim.Optimizer, warm_up: int, steps: int, least: float = 0.0) -> None:
        self.optimizer, self.warm_up, self.steps, self.least = optimizer, warm_up, steps, least
        self.rate, self.number = optimizer.param_groups[0]["lr"], -1
        self.step()

    def step(self) -> None:
        self.number += 1
        self.optimizer.param_groups[0]["lr"] = self.rate * self.share()

    def share(self) -> float:
        if self.number < self.warm_up:
            return self.number / self.warm_up
        progress = min(1.0, (self.number - self.warm_up) / (self.steps - self.warm_up))
        return self.least + (1 - self.least) * 0.5 * (1 + math.cos(math.pi * progress))


def _accumulated(
    lab: Lab, model: nn.Module, batches: Batches, loss_of: Callable[..., torch.Tensor],
    optimizer: torch.optim.Optimizer, after_part: Callable[[int], None],
) -> None:  # fmt: skip
    """Train with small batches that are added up; ``after_part`` says of which one it follows."""
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        with lab.recorder.step("train") as step:
            for part in range(PARTS):
                batch = batches(number * PARTS + part)
                with step.iteration():
                    (loss_of(*batch) / PARTS).backward()
                if part == PARTS - 1:
                    optimizer.step()
                    optimizer.zero_grad()
                after_part(part)


class _Reader(nn.Module):
    """Reads a text with attention, and says whether it is about the one thing or the other."""

    def __init__(self, words: int = 40, width: int = 32) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(words, width), nn.Parameter(0.02 * torch.randn(6, width))
        self.encoder = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.0, activation="gelu", batch_first=True)
        self.classifier = nn.Linear(width, 2)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.encoder(self.embed(words) + self.place).mean(1))


def _texts(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Texts ``(16, 6)`` about something, then something else, and whether the first is what the second is ``(16,)``."""
    chance = torch.Generator().manual_seed(number)
    topics = torch.randint(4, (16, 2), generator=chance)
    words = 10 * topics.repeat_interleave(3, dim=1) + torch.randint(10, (16, 6), generator=chance)
    return words, (topics[:, 0] == 3 - topics[:, 1]).long()


@broken(rules=("scheduler-rhythm", "learning-rate-decay"), words=("schedul",), nodes=("loss", "model"))
def schedule_stepped_with_every_part(lab: Lab) -> None:
    """The schedule is stepped with every small batch, also where the optimizer is not: it ends after a quarter.

    Source: huggingface/accelerate issue 963, scheduler always steps when training with gradient accumulation.
    """
    model = _Reader()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    schedule = _Cosine(optimizer, 8, lab.steps)

    def after_part(part: int) -> None:
        if not lab.fixed or part == PARTS - 1:
            schedule.step()  # bug: schedule_stepped_with_every_part

    def loss_of(words: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        loss = F.cross_entropy(model(words), label)
        lab.recorder.scalar("part", loss.detach())
        return loss

    _accumulated(lab, model, _texts, loss_of, optimizer, after_part)


class _Driver(nn.Module):
    """Plans the next four moves of an arm from what it sees and a word that says what to do."""

    def __init__(self) -> None:
        super().__init__()
        self.see, self.told = nn.Linear(6, 48), nn.Embedding(5, 48)
        self.think = nn.Sequential(nn.LayerNorm(48), nn.Linear(48, 96), nn.GELU(), nn.Linear(96, 48))
        self.act = nn.Linear(48, 8)

    def forward(self, seen: torch.Tensor, word: torch.Tensor) -> torch.Tensor:
        state = self.see(seen) * self.told(word)
        return self.act(state + self.think(state)).unflatten(1, (4, 2))


def _demonstrations(number: int) -> tuple[torch.Tensor, ...]:
    """What is seen ``(16, 6)``, a word ``(16,)``, and moves ``(16, 4, 2)`` towards one of three things, or away."""
    chance = torch.Generator().manual_seed(number)
    seen, word = torch.randn(16, 6, generator=chance), torch.randint(5, (16,), generator=chance)
    thing = seen.view(16, 3, 2)[torch.arange(16), word % 3] * torch.where(word < 3, 1.0, -1.0)[:, None]
    return seen, word, torch.stack([thing * share for share in (0.1, 0.4, 0.7, 1.0)], dim=1)


@broken(rules=("scheduler-rhythm", "learning-rate-decay"), words=("schedul",), nodes=("loss", "model"))
def schedule_ahead_of_the_updates(lab: Lab) -> None:
    """In the block that accumulates, the schedule is stepped with each micro-batch: the rate is least after a quarter.

    Source: starVLA pull request 210, step the LR scheduler only on actual optimizer updates.
    """
    model = _Driver()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, betas=(0.9, 0.95), weight_decay=1e-8)
    schedule = _Cosine(optimizer, 10, lab.steps, least=1e-3)

    def loss_of(seen: torch.Tensor, word: torch.Tensor, moves: torch.Tensor) -> torch.Tensor:
        loss = F.l1_loss(model(seen, word), moves)
        lab.recorder.scalar("part", loss.detach())
        return loss

    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        with lab.recorder.step("train") as step:
            for part in range(PARTS):
                sync_gradients = part == PARTS - 1
                with step.iteration():
                    (loss_of(*_demonstrations(number * PARTS + part)) / PARTS).backward()
                if sync_gradients:
                    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                    optimizer.step()
                    optimizer.zero_grad()
                if sync_gradients or not lab.fixed:
                    schedule.step()  # bug: schedule_ahead_of_the_updates


class _Writer(nn.Module):
    """Guesses the next letter."""

    def __init__(self, letters: int, width: int = 48) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(letters, width), nn.Embedding(data.CONTEXT, width)
        self.norm, self.attend = nn.LayerNorm(width), nn.MultiheadAttention(width, 4, batch_first=True)
        self.think = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 96), nn.GELU(), nn.Linear(96, width))
        self.head = nn.Linear(width, letters)

    def forward(self, letters: torch.Tensor) -> torch.Tensor:
        x = self.embed(letters) + self.place(torch.arange(letters.shape[1]))
        hidden = torch.full((letters.shape[1], letters.shape[1]), -1e4, dtype=x.dtype).triu(1)
        normal = self.norm(x)
        x = x + self.attend(normal, normal, normal, attn_mask=hidden, need_weights=False)[0]
        return self.head(x + self.think(x))


@broken(words=("float16", "half precision", "epsilon", "underflow"), nodes=("model", "model.embed.weight"))
def weights_loaded_in_half(lab: Lab) -> None:
    """The weights themselves are float16, without any mixed precision: the optimizer's epsilon is zero in it.

    Source: liucongg/ChatGLM-Finetuning issue 133, float16 weights without AMP become nan, AMP wants them in float32.
    """
    _, letters = data.text()
    model = _Writer(letters)
    if not lab.fixed:
        model.half()  # set-up bug: weights_loaded_in_half

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=lab.fixed):
            return F.cross_entropy(model(x).flatten(0, 1).float(), y.flatten())

    lab.fit(model, data.characters(8), loss_of, torch.optim.AdamW(model.parameters(), 1e-3))


def _kinds(number: int, *, other: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Digits ``(48, 1, 8, 8)`` as they are, or as another camera sees them: brighter, and with more contrast."""
    x, y = data.draw(data.images(), 48)(number)
    return (2 * x + 3 if other else x), y


class _Backbone(nn.Module):
    """Convolutions with batch norm that have learned digits, and the head that they learned with."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(512, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x))


def _pretrained() -> _Backbone:
    model = _Backbone()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for number in range(60):
        x, y = _kinds(1000 + number)
        descend(F.cross_entropy(model(x), y), optimizer)
    return model


@broken(rules=("batch-norm-mode",), words=("statistic",), nodes=("features", "features.1", "features.4"))
def statistics_of_frozen_layers_move(lab: Lab) -> None:
    """The backbone is frozen, but its batch norms still follow the new pictures, and the old head, still in use, fails.

    Source: Lightning issue 15062, BaseFinetuning's freeze does not freeze the running statistics of BatchNorm.
    """
    old = _pretrained()
    features, head = old.features.requires_grad_(False), nn.Linear(512, 2)
    optimizer = torch.optim.Adam(head.parameters(), 3e-3)
    lab.recorder.watch({"features": features, "head": head, "old_head": old.head}, optimizer)
    for number in range(lab.steps):
        x, y = _kinds(number, other=True)
        features.train(not lab.fixed)  # set-up bug: statistics_of_frozen_layers_move
        with lab.recorder.step("train"):
            descend(F.cross_entropy(head(features(x)), y % 2), optimizer)
        features.eval()
        lab.validate(_kinds, lambda x, y: F.cross_entropy(old.head(features(x)), y), 6000 + number)


@broken(rules=("batch-norm-mode",), words=("statistic",), nodes=("features", "features.1", "features.4"))
def batch_statistics_in_frozen_layers(lab: Lab) -> None:
    """Frozen batch norms use the statistics of each batch in training, and those of the old pictures in evaluation.

    Source: keras pull request 9965, a frozen BatchNormalization still uses mini-batch statistics in training.
    """
    features, head = _pretrained().features.requires_grad_(False), nn.Linear(512, 10)
    for module in features:
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
    optimizer = torch.optim.RMSprop(head.parameters(), 2e-3)
    lab.recorder.watch({"features": features, "head": head}, optimizer)
    for number in range(lab.steps):
        x, y = _kinds(number, other=True)
        features.train(not lab.fixed)  # set-up bug: batch_statistics_in_frozen_layers
        with lab.recorder.step("train"):
            descend(F.cross_entropy(head(features(x)), y), optimizer)
        features.eval()
        lab.validate(lambda n: _kinds(n, other=True), lambda x, y: F.cross_entropy(head(features(x)), y), 6000 + number)


def _scenes(number: int, *, new: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Dim (or, the new ones, bright) pictures ``(32, 3, 16, 16)`` with a thing, and its box ``(32, 4)``."""
    chance = torch.Generator().manual_seed(number)
    low = 12 * torch.rand(32, 2, generator=chance)
    high = low + 2 + (14 - low) * torch.rand(32, 2, generator=chance)
    line = torch.arange(16.0)
    down, right = (((line >= low[:, [i]]) & (line < high[:, [i]])).float() for i in range(2))
    colour = 0.5 + torch.rand(32, 3, 1, 1, generator=chance)
    picture = colour * (down[:, None, :, None] * right[:, None, None, :])
    picture = picture + 0.1 * torch.randn(32, 3, 16, 16, generator=chance)
    return 3 * picture + 2 if new else picture, torch.cat([low, high], dim=1) / 16


class _Detector(nn.Module):
    """Finds the box around a thing."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((3, 16), (16, 24), (24, 32))
        self.backbone = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(*size, 3, 2, 1), nn.BatchNorm2d(size[1]), nn.SiLU()) for size in sizes)
        )
        self.box = nn.Linear(128, 4)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        return self.box(self.backbone(picture).flatten(1)).sigmoid()


@broken(
    rules=("batch-norm-mode",), words=("statistic", "track_running_stats"),
    nodes=("model.backbone.0.1", "model.backbone.1.1", "model.backbone.2.1"),
)  # fmt: skip
def tracking_switched_off_to_freeze(lab: Lab) -> None:
    """``track_running_stats`` is switched off to freeze batch norms: they use each batch, and the old statistics later.

    Source: pytorch pull request 38084, track_running_stats=False in fine-tuning: the validation loss explodes.
    """
    model = _Detector()

    def loss_of(picture: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
        return F.smooth_l1_loss(model(picture), box, beta=0.1)

    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for number in range(40):
        picture, box = _scenes(number, new=False)
        descend(loss_of(picture, box), optimizer)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = lab.fixed  # set-up bug: tracking_switched_off_to_freeze

    def after(number: int) -> None:
        model.eval()
        lab.validate(lambda number: _scenes(number, new=True), loss_of, 6000 + number)
        model.train()

    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-4)
    lab.fit(model, lambda number: _scenes(100 + number, new=True), loss_of, optimizer, after=after)
