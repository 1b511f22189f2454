"""Mistakes in agents that learn from rewards and in settings of optimizers, which two guides warn of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Categorical

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


class _ActorCritic(nn.Module):
    """A trunk for both, the scores of the actions, and the value."""

    def __init__(self, inputs: int, actions: int, width: int = 48) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh())
        self.policy, self.value = nn.Linear(width, actions), nn.Linear(width, 1)
        nn.init.orthogonal_(self.policy.weight, 0.01)

    def forward(self, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.trunk(seen)
        return self.policy(features), self.value(features).squeeze(-1)


class _Cart:
    """Carts that are pushed left or right, or not, and cost what they are away from the middle, in metres."""

    def __init__(self, carts: int, generator: torch.Generator) -> None:
        self.state = torch.rand(carts, 2, generator=generator) * 2 - 1

    def push(self, action: torch.Tensor) -> torch.Tensor:
        speed = 0.9 * self.state[:, 1] + 0.25 * (action - 1)
        place = (self.state[:, 0] + 0.5 * speed).clamp(-3, 3)
        self.state = torch.stack([place, speed], dim=1)
        return -place.abs()


@torch.no_grad()
def _driven(model: _ActorCritic, seed: int, moments: int = 16) -> _Batch:
    """What 32 carts saw, did, and got in sixteen moments: ``(16, 32, ...)`` each."""
    carts = _Cart(32, torch.Generator().manual_seed(seed))
    seen, done, got = [], [], []
    for _ in range(moments):
        seen.append(carts.state)
        done.append(Categorical(logits=model(carts.state)[0]).sample())
        got.append(carts.push(done[-1]))
    return torch.stack(seen), torch.stack(done), torch.stack(got)


def _returns(rewards: torch.Tensor, discount: float = 0.9) -> torch.Tensor:
    total, totals = torch.zeros_like(rewards[0]), []
    for reward in rewards.flip(0):
        total = reward + discount * total
        totals.append(total)
    return torch.stack(totals).flip(0)


@broken(
    rules=("target-scale",),
    words=("reward", "scale the target", "scale of the target"),
    nodes=("target", "loss", "model.value", "model.value.weight", "model.value.bias"),
)
def carts_paid_in_millimetres(lab: Lab) -> None:
    """Carts are rewarded by their distance in millimetres, thousands, so that the critic swamps what both share.

    Source: Andy Jones, Debugging RL, without the agonizing pain: hand-tune your reward scale.
    """
    model = _ActorCritic(2, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, eps=1e-5)
    lab.recorder.watch(model, optimizer)
    unit = 0.3 if lab.fixed else 1000.0  # set-up bug: carts_paid_in_millimetres
    for number in range(lab.steps):
        seen, done, metres = _driven(model, number)
        target = _returns(unit * metres)
        with lab.recorder.step("train") as step:
            step.record("target", target, type="target")
            scores, value = model(seen)
            chosen = Categorical(logits=scores)
            actor = -(chosen.log_prob(done) * (target - value.detach())).mean()
            loss = actor + 0.5 * F.mse_loss(value, target) - 0.005 * chosen.entropy().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
        if number % 30 == 29:
            with lab.recorder.step("validation") as step:
                step.record("metres from the middle", -_driven(model, 9000 + number)[2].mean())


_ARMS = torch.randn(10, 6, generator=torch.Generator().manual_seed(11))


def _visitors(number: int, rows: int) -> _Batch:
    """Visitors ``(rows, 10)``, and how likely each of six offers is taken by them ``(rows, 6)``."""
    x = torch.randn(rows, 10, generator=torch.Generator().manual_seed(number))
    return x, (0.7 * x @ _ARMS - 2).sigmoid()


@broken(
    rules=("tiny-batch",),
    words=("batch size", "small batch", "few samples", "larger batch"),
    nodes=("model", "input", "loss", "model.0.weight", "model.2.weight"),
)
def offers_learned_from_two_visitors(lab: Lab) -> None:
    """A policy gradient is estimated from two visitors at a time, and is hardly more than the noise of their choices.

    Source: Andy Jones, Debugging RL, without the agonizing pain: use a really large batch size.
    """
    model = nn.Sequential(nn.Linear(10, 48), nn.ReLU(), nn.Linear(48, 6))
    optimizer = torch.optim.RMSprop(model.parameters(), lr=3e-3)
    lab.recorder.watch(model, optimizer)
    visitors = 512 if lab.fixed else 2
    average = 0.15
    for number in range(lab.steps):
        x, chances = _visitors(number, visitors)  # set-up bug: offers_learned_from_two_visitors
        with lab.recorder.step("train"):
            policy = Categorical(logits=model(x))
            offer = policy.sample()
            taken = chances.gather(1, offer[:, None])[:, 0].bernoulli()
            loss = -(policy.log_prob(offer) * (taken - average)).mean() - 0.01 * policy.entropy().mean()
            descend(loss, optimizer)
        average = 0.95 * average + 0.05 * float(taken.mean())
        if number % 30 == 29:
            with torch.no_grad(), lab.recorder.step("validation") as step:
                unseen, likely = _visitors(9000 + number, 1000)
                step.record("taken", (model(unseen).softmax(1) * likely).sum(1).mean())


class _Dungeon:
    """Five rooms, 30 moments in each, that want other levers for what is seen; agents begin at the door, or spread."""

    def __init__(self, agents: int, *, spread: bool) -> None:
        self.generator = torch.Generator().manual_seed(2)
        self.right = torch.randn(5, 6, 4, generator=torch.Generator().manual_seed(12))
        self.moment = torch.randint(150, (agents,), generator=self.generator)
        if not spread:
            self.moment = torch.zeros_like(self.moment)

    def look(self) -> _Batch:
        """What is seen ``(agents, 11)``: six marks and the room; and what each lever brings ``(agents, 4)``."""
        room = self.moment // 30 % 5
        marks = torch.randn(len(room), 6, generator=self.generator)
        brings = torch.einsum("am,aml->al", marks, self.right[room]).div(2).tanh()
        self.moment = self.moment + 1
        return torch.cat([marks, F.one_hot(room, 5).float()], dim=1), brings


@broken(
    words=("same start", "begin together", "correlated", "lockstep", "same room", "same moment"),
    nodes=("input", "model"),
)
def agents_that_enter_together(lab: Lab) -> None:
    """All 128 agents start at the door of a long dungeon at once, so that each batch is of one room and others fade.

    Source: Andy Jones, Debugging RL, without the agonizing pain: mix your vectorized environments.
    """
    model = nn.Sequential(nn.Linear(11, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    lab.recorder.watch(model, optimizer)
    dungeon = _Dungeon(128, spread=lab.fixed)  # set-up bug: agents_that_enter_together
    judge = _Dungeon(1000, spread=True)
    for number in range(lab.steps):
        seen, brings = dungeon.look()
        with lab.recorder.step("train"):
            values = model(seen)
            greedy, random = values.argmax(1), torch.randint(4, (128,))
            lever = torch.where(torch.rand(128) < 0.3, random, greedy)[:, None]
            reward = brings.gather(1, lever)
            descend(F.mse_loss(values.gather(1, lever), reward), optimizer)
        if number % 30 == 29:
            with torch.no_grad(), lab.recorder.step("validation") as step:
                seen, brings = judge.look()
                step.record("reward", brings.gather(1, model(seen).argmax(1, keepdim=True)).mean())


def _scans(number: int, rows: int) -> _Batch:
    """Scans ``(rows, 1, 16, 16)`` with a bright disc and a dark one, and what each pixel belongs to: 0, 1 or 2."""
    generator = torch.Generator().manual_seed(number)
    grid = torch.arange(16.0)
    scans, masks = torch.zeros(rows, 16, 16), torch.zeros(rows, 16, 16, dtype=torch.long)
    for kind, shade in ((1, 1.0), (2, -1.0)):
        centre = 3 + 10 * torch.rand(rows, 2, 1, 1, generator=generator)
        size = 2 + 2 * torch.rand(rows, 1, 1, generator=generator)
        disc = ((grid[:, None] - centre[:, 0]) ** 2 + (grid - centre[:, 1]) ** 2).sqrt() < size
        masks[disc], scans[disc] = kind, shade
    return (scans + 0.6 * torch.randn(scans.shape, generator=generator))[:, None], masks


class _Segmenter(nn.Module):
    """An encoder, a narrow middle, and a decoder with a skip connection."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, width, 3, padding=1)
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.up = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.head = nn.Conv2d(2 * width, 3, 3, padding=1)

    def forward(self, scan: torch.Tensor) -> torch.Tensor:
        fine = F.relu(self.down(scan))
        coarse = F.relu(self.middle(F.max_pool2d(fine, 2)))
        return self.head(torch.cat([fine, F.relu(self.up(coarse))], dim=1))


@broken(
    rules=("learning-rate", "tiny-batch"),
    words=("learning rate", "batch size", "small batch"),
    nodes=("model", "model.down.weight", "model.middle.weight", "model.up.weight", "model.head.weight", "input"),
)
def rate_kept_when_the_batch_shrank(lab: Lab) -> None:
    """For lack of memory the batch was cut from 32 scans to one, while the learning rate stayed what suits 32.

    Source: Deep Learning Tuning Playbook, choosing the batch size: most optimal hyperparameters change with it.
    """
    model = _Segmenter()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    rows = 32 if lab.fixed else 1  # set-up bug: rate_kept_when_the_batch_shrank

    def loss_of(scans: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(scans), masks)

    after = lab.validating(model, lambda number: _scans(9000 + number, 48), loss_of)
    lab.fit(model, lambda number: _scans(number, rows), loss_of, optimizer, after=after)


class _Tastes(nn.Module):
    """What a listener thinks of a song: tables of tastes and of kinds, and a bias for each."""

    def __init__(self, listeners: int, songs: int, width: int = 4) -> None:
        super().__init__()
        self.listener, self.song = nn.Embedding(listeners, width), nn.Embedding(songs, width)
        self.liked = nn.Embedding(songs, 1)
        for table in (self.listener, self.song, self.liked):
            nn.init.normal_(table.weight, std=0.3)

    def forward(self, listener: torch.Tensor, song: torch.Tensor) -> torch.Tensor:
        return (self.listener(listener) * self.song(song)).sum(1) + self.liked(song)[:, 0]


def _heard(number: int, *, noise: float = 1.5) -> _Batch:
    """Listeners and songs ``(128,)``, and how they were rated, which depends much on the day."""
    fixed, generator = torch.Generator().manual_seed(21), torch.Generator().manual_seed(number)
    taste, kind = torch.randn(2, 30, 2, generator=fixed)
    listener, song = torch.randint(30, (2, 128), generator=generator)
    rated = (taste[listener] * kind[song]).sum(1) / 1.4
    return listener, song, rated + noise * torch.randn(128, generator=generator)


@broken(
    rules=("learning-rate",),
    words=("anneal", "schedule", "learning rate"),
    nodes=("model", "model.listener.weight", "model.song.weight", "model.liked.weight"),
)
def ratings_at_a_rate_that_never_falls(lab: Lab) -> None:
    """The high learning rate is never annealed, so that tastes keep jumping after the noise of the last ratings.

    Source: Deep Learning Tuning Playbook, training curves: high step-to-step variance late in training (decay).
    """
    model = _Tastes(30, 30)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.2)
    lowest = 1e-3 if lab.fixed else 0.2  # set-up bug: ratings_at_a_rate_that_never_falls
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, lab.steps, eta_min=lowest)

    def loss_of(listener: torch.Tensor, song: torch.Tensor, rated: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(listener, song), rated)

    validate = lab.validating(model, lambda number: _heard(9000 + number, noise=0.0), loss_of)

    def after(number: int) -> None:
        schedule.step()
        validate(number)

    lab.fit(model, _heard, loss_of, optimizer, after=after)
