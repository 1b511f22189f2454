"""Training runs of agents, graphs, pairs and tables, in which nothing is wrong."""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import mlp

_Batch = tuple[torch.Tensor, ...]


class _Lifts:
    """Thirty-two lifts over five floors; one that stops where somebody waits gets one, and a ride costs a little."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.floor, self.waits = self._floors(), self._floors()

    def _floors(self) -> torch.Tensor:
        return torch.randint(5, (32,), generator=self.generator)

    def seen(self) -> torch.Tensor:
        return torch.stack([(self.floor - 2) / 1.4, (self.waits - 2) / 1.4], dim=1)

    def ride(self, action: torch.Tensor) -> torch.Tensor:
        """Down, stop, up; the rewards."""
        stopped = (action == 1) & (self.floor == self.waits)
        self.floor = (self.floor + action - 1).clamp(0, 4)
        self.waits = torch.where(stopped, self._floors(), self.waits)
        return stopped.float() - 0.05 * (action != 1)


def lifts_that_learn_by_replay(lab: Lab) -> None:
    """A double Q-network for lifts, with replay, a slow target network and less and less exploration."""
    online = mlp(2, 64, 64, 3)
    target = deepcopy(online).requires_grad_(False)
    optimizer = torch.optim.Adam(online.parameters(), lr=3e-3)
    lab.recorder.watch(online, optimizer)
    lifts, generator = _Lifts(1), torch.Generator().manual_seed(2)
    memory: list[_Batch] = []
    for number in range(280):
        seen = lifts.seen()
        with torch.no_grad():
            best = online(seen).argmax(1)
        anything = torch.randint(3, (32,), generator=generator)
        explores = torch.rand(32, generator=generator) < max(0.1, 1 - number / 180)
        action = torch.where(explores, anything, best)
        reward = lifts.ride(action)
        memory.append((seen, action, reward, lifts.seen()))
        if number < 20:
            continue
        rows = torch.randint(32 * len(memory), (192,), generator=generator)
        before, done, got, after = (torch.cat(column)[rows] for column in zip(*memory, strict=True))
        with lab.recorder.step("train"):
            with torch.no_grad():
                following = target(after).gather(1, online(after).argmax(1, keepdim=True))[:, 0]
            value = online(before).gather(1, done[:, None])[:, 0]
            descend(F.smooth_l1_loss(value, got + 0.8 * following), optimizer)
        with torch.no_grad():
            for slow, fast in zip(target.parameters(), online.parameters(), strict=True):
                slow.lerp_(fast, 0.1)


class _Graph(nn.Module):
    """Two graph convolutions."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Linear(features, 32), nn.Linear(32, classes)
        self.drop = nn.Dropout(0.3)

    def forward(self, x: torch.Tensor, links: torch.Tensor) -> torch.Tensor:
        x = F.relu(links @ self.conv1(x))
        return links @ self.conv2(self.drop(x))


def villages_told_by_their_roads(lab: Lab) -> None:
    """Graph convolutions find which of four regions a village is in, from its roads and from what it grows."""
    generator = torch.Generator().manual_seed(5)
    region = torch.randint(4, (400,), generator=generator)
    near = region[:, None] == region[None, :]
    roads = torch.rand(400, 400, generator=generator) < torch.where(near, 0.04, 0.006)
    roads = (roads | roads.T | torch.eye(400, dtype=torch.bool)).float()
    scale = roads.sum(1).rsqrt()
    links = scale[:, None] * roads * scale
    grown = torch.randn(4, 12, generator=generator)[region] + 1.5 * torch.randn(400, 12, generator=generator)
    x, known = data.standardised(grown), torch.arange(400) < 240
    model = _Graph(12, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=5e-3)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        with lab.recorder.step("train"):
            descend(F.cross_entropy(model(x, links)[known], region[known]), optimizer)
        model.eval()
        lab.validate(lambda _: (x, region), lambda x, y: F.cross_entropy(model(x, links)[~known], y[~known]), number)
        model.train()


def digits_in_triplets(lab: Lab) -> None:
    """A network puts digits of a class near each other, and those of others at a distance, by a triplet margin."""
    x, y = data.pixels()
    model = mlp(64, 96, 96, 16)
    rows = [torch.nonzero(y == label)[:, 0] for label in range(10)]

    def batches(number: int) -> _Batch:
        generator = torch.Generator().manual_seed(number)
        label = torch.randint(10, (96,), generator=generator)
        other = (label + torch.randint(1, 10, (96,), generator=generator)) % 10
        parts = []
        for labels in (label, label, other):
            chance = torch.rand(96, generator=generator)
            at = [rows[int(a)][int(c * len(rows[int(a)]))] for a, c in zip(labels, chance, strict=True)]
            parts.append(x[torch.stack(at)])
        return tuple(parts)

    def loss_of(anchor: torch.Tensor, alike: torch.Tensor, unlike: torch.Tensor) -> torch.Tensor:
        first, near, far = F.normalize(model(torch.cat([anchor, alike, unlike])), dim=1).chunk(3)
        return F.triplet_margin_loss(first, near, far, margin=0.5)

    lab.fit(model, batches, loss_of, lr=1e-3)


def patients_by_a_deep_residual_net(lab: Lab) -> None:
    """Normalised residual layers tell harmless tumours from others, with weight decay and a falling rate."""
    x, y = data.tumours()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(3))
    train, unseen = order[:420], order[420:]
    model = _Residual(30, 12)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 150, eta_min=1e-4)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(model(x), y)

    validates = lab.validating(model, lambda _: (x[unseen], y[unseen]), loss_of)

    def after(number: int) -> None:
        schedule.step()
        validates(number)

    lab.fit(model, data.draw((x[train], y[train])), loss_of, optimizer, after=after)


class _Residual(nn.Module):
    """Four residual layers, each of which normalises what it reads."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(inputs, width), nn.Linear(width, 1)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Dropout(0.3), nn.Linear(width, width)
            )
            for _ in range(4)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)
        for layer in self.layers:
            x = x + layer(x)
        return self.leave(x)[:, 0]
