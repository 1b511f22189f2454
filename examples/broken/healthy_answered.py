"""Trainings of the kinds that people ask about, in which nothing is wrong."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken import data
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import mlp

_Batch = tuple[torch.Tensor, ...]


def digits_by_convolutions_that_warm_up(lab: Lab) -> None:
    """Digits are told by a network with batch norms, whose learning rate rises and falls in one cycle."""
    x, y = data.images()
    unseen, labels = data.unseen_pixels()
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Dropout(0.1), nn.Linear(32, 10),
    )  # fmt: skip
    loader = DataLoader(TensorDataset(x, y), batch_size=48, shuffle=True, drop_last=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=6 * len(loader))
    criterion = nn.CrossEntropyLoss(label_smoothing=0.05)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda _: (unseen.view(-1, 1, 8, 8), labels), lambda x, y: criterion(model(x), y))
    for epoch in range(6):
        for place, (rows, classes) in enumerate(loader):
            with lab.recorder.step("train"):
                descend(criterion(model(rows), classes), optimizer)
            schedule.step()
            after(epoch * len(loader) + place)


class _Tagger(nn.Module):
    """Letters read from both sides by packed LSTMs, and a tag for each."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(28, 12, padding_idx=0)
        self.lstm = nn.LSTM(12, 24, batch_first=True, bidirectional=True)
        self.tag = nn.Linear(48, 3)

    def forward(self, letters: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(self.embed(letters), lengths, batch_first=True, enforce_sorted=False)
        states, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=12)
        return self.tag(states)


def _tagged(number: int) -> _Batch:
    """Words of five to twelve letters ``(32, 12)``, their lengths, and of each letter how it and the next compare."""
    generator = torch.Generator().manual_seed(number)
    lengths = torch.randint(5, 13, (32,), generator=generator)
    inside = torch.arange(12) < lengths[:, None]
    letters = torch.randint(1, 28, (32, 12), generator=generator) * inside
    tags = 1 + (letters.roll(-1, dims=1) - letters).sign()
    known = inside & (torch.arange(12) < lengths[:, None] - 1)
    return letters, lengths, tags.masked_fill(~known, -100)


def letters_tagged_from_both_sides(lab: Lab) -> None:
    """Words of several lengths are tagged letter by letter, and what is padded counts nothing."""
    model = _Tagger()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def loss_of(letters: torch.Tensor, lengths: torch.Tensor, tags: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(letters, lengths).flatten(0, 1), tags.flatten(), ignore_index=-100)

    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda number: _tagged(9000 + number), loss_of)
    for number in range(120):
        with lab.recorder.step("train"):
            loss = loss_of(*_tagged(number))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        after(number)


def _noisy(number: int) -> _Batch:
    """Waves ``(48, 32)`` in noise, and as they are."""
    generator = torch.Generator().manual_seed(number)
    speed, phase, height = torch.rand(3, 48, 1, generator=generator)
    wave = (0.5 + height) * ((0.2 + 0.4 * speed) * torch.arange(32.0) + 6.28 * phase).sin()
    return wave + 0.4 * torch.randn(48, 32, generator=generator), wave


def waves_freed_of_noise(lab: Lab) -> None:
    """An autoencoder of convolutions frees waves of noise."""
    model = nn.Sequential(
        nn.Unflatten(1, (1, 32)), nn.Conv1d(1, 16, 5, stride=2, padding=2), nn.GELU(),
        nn.Conv1d(16, 32, 5, stride=2, padding=2), nn.GELU(),
        nn.ConvTranspose1d(32, 16, 4, stride=2, padding=1), nn.GELU(),
        nn.ConvTranspose1d(16, 1, 4, stride=2, padding=1), nn.Flatten(),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=1e-4)

    def loss_of(noisy: torch.Tensor, wave: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(noisy), wave)

    after = lab.validating(model, lambda number: _noisy(9000 + number), loss_of)
    lab.fit(model, _noisy, loss_of, optimizer, after=after)


def rare_labels_that_count_more(lab: Lab) -> None:
    """One to three of twelve labels are true, and the true ones count more."""
    sign = torch.randn(12, 24, generator=torch.Generator().manual_seed(8))

    def batches(number: int) -> _Batch:
        generator = torch.Generator().manual_seed(number)
        true = (torch.rand(64, 12, generator=generator) < 1 / 6).float()
        return true @ sign / 2 + 0.5 * torch.randn(64, 24, generator=generator), true

    model = nn.Sequential(nn.Linear(24, 64), nn.LayerNorm(64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 12))
    criterion = nn.BCEWithLogitsLoss(pos_weight=torch.full((12,), 3.0))
    after = lab.validating(model, lambda number: batches(9000 + number), lambda x, y: criterion(model(x), y))
    lab.fit(model, batches, lambda x, y: criterion(model(x), y), lr=5e-3, after=after)


def _turns(number: int, policy: nn.Module) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sixty-four walks of twelve moves to a goal on a ring: what was seen, the moves, and the returns to come."""
    generator = torch.Generator().manual_seed(number)
    place = 2 * torch.rand(64, 1, generator=generator) - 1
    seen, moves, rewards = [], [], []
    for _ in range(12):
        view = torch.cat([place, place.abs()], dim=1)
        with torch.no_grad():
            chances = policy(view)
        move = torch.multinomial(chances.softmax(1), 1, generator=generator)
        place = (place + 0.2 * (move - 1)).clamp(-1.5, 1.5)
        seen.append(view)
        moves.append(move[:, 0])
        rewards.append(1 - place[:, 0].abs())
    returns = torch.stack(rewards).flip(0).cumsum(0).flip(0)
    return torch.stack(seen), torch.stack(moves), returns


def walkers_with_a_critic(lab: Lab) -> None:
    """Walkers learn to come near a goal: a policy gradient, with a critic for a baseline and a bonus for entropy."""
    actor, critic = mlp(2, 32, 3, activation=nn.Tanh), mlp(3, 32, 1, activation=nn.Tanh)
    model = nn.ModuleDict({"actor": actor, "critic": critic})
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    lab.recorder.watch(model, optimizer)
    left = torch.linspace(1, 0, 12)[:, None, None].expand(12, 64, 1)
    for number in range(lab.steps):
        seen, moves, returns = _turns(number, actor)
        returns = returns / 6
        with lab.recorder.step("train"):
            value = critic(torch.cat([seen, left], dim=2))[:, :, 0]
            advantage = (returns - value).detach()
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-6)
            chances = torch.distributions.Categorical(logits=actor(seen))
            gain = (advantage * chances.log_prob(moves)).mean() + 0.005 * chances.entropy().mean()
            descend(0.5 * F.mse_loss(value, returns) - gain, optimizer)
        if number % 30 == 29:
            _, _, reached = _turns(9000 + number, actor)
            with lab.recorder.step("validation") as step:
                step.record("loss", 1 - reached[0].mean() / 12, type="loss")
