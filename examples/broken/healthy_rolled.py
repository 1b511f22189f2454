"""Sound trainings of several trades, beside the runs drawn by dice."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


class _GraphNet(nn.Module):
    """Two rounds of messages between neighbours."""

    def __init__(self, features: int, classes: int, width: int = 24) -> None:
        super().__init__()
        self.own1, self.heard1 = nn.Linear(features, width), nn.Linear(features, width, bias=False)
        self.own2, self.heard2 = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.dropout, self.head = nn.Dropout(0.2), nn.Linear(width, classes)

    def forward(self, x: torch.Tensor, neighbours: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.own1(x) + self.heard1(neighbours @ x))
        x = F.relu(self.own2(x) + self.heard2(neighbours @ x))
        return self.head(self.dropout(x))


def communities_in_a_graph(lab: Lab) -> None:
    """Four communities of 600 people are told by whom they know; half of the labels are kept for validation."""
    generator = torch.Generator().manual_seed(3)
    community = torch.arange(600) % 4
    alike = community[:, None] == community[None]
    knows = torch.rand(600, 600, generator=generator) < torch.where(alike, 0.08, 0.015)
    knows = (knows | knows.T).float().fill_diagonal_(0)
    neighbours = knows / knows.sum(1, keepdim=True).clamp(min=1)
    x = 0.5 * F.one_hot(community, 4).float() + torch.randn(600, 4, generator=generator)
    x = torch.cat([data.standardised(x), torch.randn(600, 4, generator=generator)], 1)
    known = torch.rand(600, generator=generator) < 0.5
    model = _GraphNet(8, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=5e-3)
    lab.recorder.watch(model, optimizer)
    for number in range(60):
        model.train()
        with lab.recorder.step("train"):
            descend(F.cross_entropy(model(x, neighbours)[known], community[known]), optimizer)
        if number % 20 == 19:
            model.eval()
            with torch.no_grad(), lab.recorder.step("validation") as step:
                step.record("loss", F.cross_entropy(model(x, neighbours)[~known], community[~known]), type="loss")


class _ActorCritic(nn.Module):
    """What to do, and what it is worth."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh())
        self.policy, self.value = nn.Linear(48, 3), nn.Linear(48, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.body(x)
        return self.policy(hidden), self.value(hidden)[:, 0]


def thermostats_learn_when_to_heat(lab: Lab) -> None:
    """A policy with a critic keeps 64 rooms warm over rollouts of eight moments, with a bonus for its entropy."""
    model = _ActorCritic()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    lab.recorder.watch(model, optimizer)
    room = torch.randn(64, 3)
    for _ in range(lab.steps):
        seen, actions, rewards = [], [], []
        with torch.no_grad():
            for _ in range(8):
                action = torch.distributions.Categorical(logits=model(room)[0]).sample()
                warmth = 0.9 * room[:, 0] + 0.6 * (action - 1) + 0.2 * room[:, 1]
                seen.append(room)
                actions.append(action)
                rewards.append(-0.2 * warmth**2)
                room = torch.stack([warmth, 0.9 * room[:, 1] + 0.3 * torch.randn(64), torch.randn(64)], 1)
            worth, returns = model(room)[1], list[torch.Tensor]()
            for reward in reversed(rewards):
                worth = reward + 0.9 * worth
                returns.insert(0, worth)
        wanted = torch.cat(returns)
        with lab.recorder.step("train"):
            logits, value = model(torch.cat(seen))
            chances = torch.distributions.Categorical(logits=logits)
            advantage = wanted - value.detach()
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-6)
            gain = (chances.log_prob(torch.cat(actions)) * advantage).mean() + 0.01 * chances.entropy().mean()
            optimizer.zero_grad()
            (0.5 * F.mse_loss(value, wanted) - gain).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()


class _TwoHeads(nn.Module):
    """Convolutions over a signal, then how fast it swings and what form it has."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv1d(1, 16, 5, padding=2, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(2),
            nn.Conv1d(16, 32, 5, padding=2, bias=False), nn.BatchNorm1d(32), nn.ReLU(), nn.AdaptiveAvgPool1d(4),
            nn.Flatten(),
        )  # fmt: skip
        self.speed, self.form = nn.Linear(128, 1), nn.Linear(128, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.trunk(x)
        return self.speed(hidden), self.form(hidden)


def _signals(number: int) -> _Batch:
    generator = torch.Generator().manual_seed(number)
    speed, phase = torch.randn(64, 1, generator=generator), 6.28 * torch.rand(64, 1, generator=generator)
    form = torch.randint(3, (64,), generator=generator)
    wave = ((0.6 + 0.12 * speed) * torch.arange(32.0) + phase).sin()
    forms = torch.stack([1.4 * wave, wave.sign(), 2 * wave.abs() - 1.27], 1)
    picked = forms[torch.arange(64), form] + 0.2 * torch.randn(64, 32, generator=generator)
    return picked[:, None], speed, form


def speed_and_form_of_a_signal(lab: Lab) -> None:
    """Two heads on one trunk, whose losses are of the same size."""
    model = _TwoHeads()

    def loss_of(signal: torch.Tensor, speed: torch.Tensor, form: torch.Tensor) -> torch.Tensor:
        says, scores = model(signal)
        return F.mse_loss(says, speed) + F.cross_entropy(scores, form)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4)
    after = lab.validating(model, lambda number: _signals(9000 + number), loss_of)
    lab.fit(model, _signals, loss_of, optimizer, after=after)


class _Forecaster(nn.Module):
    """A GRU, and what comes next as a change of the last value."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.change = nn.GRU(1, 32, batch_first=True), nn.Linear(32, 1)

    def forward(self, past: torch.Tensor) -> torch.Tensor:
        states, _ = self.gru(past)
        return past[:, -1] + self.change(states[:, -1])


def _tides(number: int) -> _Batch:
    generator = torch.Generator().manual_seed(number)
    start = 500 * torch.rand(48, 1, generator=generator)
    hours = start + torch.arange(25.0)
    level = (hours * 0.506).sin() + 0.5 * (hours * 0.262).sin() + 0.05 * torch.randn(48, 25, generator=generator)
    return level[:, :24, None], level[:, 24:]


def tides_of_the_next_hour(lab: Lab) -> None:
    """A GRU forecasts the level of the sea with a rate that warms up and decays."""
    model = _Forecaster()
    optimizer = torch.optim.Adam(model.parameters(), lr=8e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, total_steps=lab.steps, pct_start=0.2)
    check = lab.validating(model, lambda number: _tides(9000 + number), lambda past, y: F.mse_loss(model(past), y))

    def after(number: int) -> None:
        schedule.step()
        check(number)

    lab.fit(model, _tides, lambda past, following: F.mse_loss(model(past), following), optimizer, after=after)


def views_of_the_same_digit(lab: Lab) -> None:
    """Two noisy views of each of 96 digits are to find each other among all, after SimCLR."""
    images, _ = data.images()
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 64), nn.ReLU(),
        nn.Linear(64, 32),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-4)

    def views(number: int) -> _Batch:
        generator = torch.Generator().manual_seed(number)
        picked = images[torch.randint(len(images), (96,), generator=generator)]
        return tuple(picked + 0.5 * torch.randn(picked.shape, generator=generator) for _ in range(2))

    def loss_of(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        first, second = F.normalize(model(one), dim=1), F.normalize(model(other), dim=1)
        alike = first @ second.T / 0.2
        own = torch.arange(len(one))
        return (F.cross_entropy(alike, own) + F.cross_entropy(alike.T, own)) / 2

    lab.fit(model, views, loss_of, optimizer, after=lab.validating(model, lambda n: views(9000 + n), loss_of))
