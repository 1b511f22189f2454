"""Mistakes in trainings of transformers, agents, recommenders and views, drawn by dice from collections of faults."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import mlp

_Batch = tuple[torch.Tensor, ...]


def _varied(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each picture shifted by up to one pixel, brighter or darker, with noise."""
    moved = []
    for picture in x:
        down, right = torch.randint(-1, 2, (2,), generator=generator).tolist()
        moved.append(picture.roll((down, right), (1, 2)))
    contrast = 0.6 + 0.8 * torch.rand(len(x), 1, 1, 1, generator=generator)
    return contrast * torch.stack(moved) + 0.3 * torch.randn(x.shape, generator=generator)


class _Views(nn.Module):
    """An encoder for pictures, and a projection of length one."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 24, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(384, 48),
        )  # fmt: skip
        self.project = nn.Sequential(nn.ReLU(), nn.Linear(48, 24))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.project(self.encoder(x)), dim=1)


def _contrast(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Each view has to find the other view of its picture."""
    alike = first @ second.T / 0.2
    which = torch.arange(len(first))
    return (F.cross_entropy(alike, which) + F.cross_entropy(alike.T, which)) / 2


@broken(words=("augment", "identical", "same view", "same picture"), nodes=("input",))
def two_views_without_augmentation(lab: Lab) -> None:
    """The pictures of a contrastive training are not augmented, so that the two views of each are the same picture.

    Source: taxonomy of Humbatova et al. (ICSE 2020), training process, missing data augmentation.
    """
    x, _ = data.images()
    train, test = x[:1100], x[1100:1228]
    model = _Views()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=1e-3)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        generator = torch.Generator().manual_seed(number)
        pictures = train[torch.randint(len(train), (64,), generator=generator)]
        first = second = pictures  # set-up bug: two_views_without_augmentation
        if lab.fixed:
            first, second = _varied(pictures, generator), _varied(pictures, generator)
        with lab.recorder.step("train"):
            descend(_contrast(model(first), model(second)), optimizer)
        if number % 30 == 29:
            photos = torch.Generator().manual_seed(9000 + number)
            with torch.no_grad(), lab.recorder.step("validation") as step:
                step.record("loss", _contrast(model(_varied(test, photos)), model(_varied(test, photos))), type="loss")


class _Encoder(nn.Module):
    """A layer of a transformer over words, their mean, the classes."""

    def __init__(self, words: int, length: int, classes: int, width: int = 32) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(words, width), nn.Parameter(0.02 * torch.randn(length, width))
        self.layer = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.1, batch_first=True, norm_first=True)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.layer(self.embed(text) + self.place)).mean(1))


_INTENTS = 40


def _requests(number: int) -> _Batch:
    """Requests of twelve words ``(64, 12)``, four of which belong to one of forty intents, and the intent."""
    generator = torch.Generator().manual_seed(number)
    intent = torch.randint(_INTENTS, (64,), generator=generator)
    own = torch.randint(160, (_INTENTS, 5), generator=torch.Generator().manual_seed(40))
    text = torch.randint(160, (64, 12), generator=generator)
    said = own[intent].gather(1, torch.randint(5, (64, 4), generator=generator))
    places = torch.rand(64, 12, generator=generator).argsort(1)[:, :4]
    return text.scatter(1, places, said), intent


@broken(words=("binary", "exclusive", "bce"), nodes=("loss", "model", "model.head"))
def intents_judged_one_by_one(lab: Lab) -> None:
    """Forty intents exclude each other, yet they are trained with binary cross-entropy, each of them by itself.

    Source: DeepLocalize / DeepFD (Stack Overflow programs), binary cross-entropy for several exclusive classes.
    """
    model = _Encoder(160, 12, _INTENTS)

    def loss_of(text: torch.Tensor, intent: torch.Tensor) -> torch.Tensor:
        scores = model(text)
        if lab.fixed:
            return F.cross_entropy(scores, intent)
        wanted = F.one_hot(intent, _INTENTS).float()
        return F.binary_cross_entropy_with_logits(scores, wanted)  # bug: intents_judged_one_by_one

    after = lab.validating(model, lambda number: _requests(9000 + number), loss_of)
    lab.fit(model, _requests, loss_of, lr=5e-3, after=after)


def _journal(number: int, share: float = 0.025) -> _Batch:
    """Twenty entries of a machine's journal ``(64, 20)``, and whether an outage follows: two alarms are among them."""
    generator = torch.Generator().manual_seed(number)
    outage = torch.rand(64, generator=generator) < share
    entries = torch.randint(8, 60, (64, 20), generator=generator)
    alarms = torch.randint(8, (64, 3), generator=generator)
    places = torch.rand(64, 20, generator=generator).argsort(1)[:, :3]
    alarms = torch.where(outage[:, None] | (torch.rand(64, 3, generator=generator) < 0.12), alarms, entries[:, :3])
    return entries.scatter(1, places, alarms), outage.long()


@broken(rules=("imbalanced-targets",), words=("imbalance", "rare", "one class", "majority"), nodes=("target", "loss"))
def outages_as_rare_as_they_are(lab: Lab) -> None:
    """One journal in forty ends in an outage, and the loss weighs each row alike, so that no outage is ever foreseen.

    Source: SageMaker Debugger's built-in rules, ClassImbalance that nothing makes up for.
    """
    model = _Encoder(60, 20, 2)
    weight = torch.tensor([1.0, 39.0]) if lab.fixed else None
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda n: _journal(9000 + n, 0.5), lambda x, y: F.cross_entropy(model(x), y))
    for number in range(lab.steps):
        entries, outage = _journal(number)
        with lab.recorder.step("train"):
            scores = model(entries)
            loss = F.cross_entropy(scores, outage, weight=weight)  # bug: outages_as_rare_as_they_are
            descend(loss, optimizer)
        after(number)


class _ActorCritic(nn.Module):
    """What to do and what it is worth, out of one trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh())
        self.actor, self.critic = nn.Linear(48, 5), nn.Linear(48, 1)

    def forward(self, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.trunk(state)
        return self.actor(hidden), self.critic(hidden)[:, 0]


_PUSHES = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])


class _Pucks:
    """Pucks on ice that have to come to rest in the middle; each can be pushed in four directions, or not at all."""

    def __init__(self, number: int, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.state = self._fresh(number)

    def _fresh(self, number: int) -> torch.Tensor:
        return 1.5 * (2 * torch.rand(number, 4, generator=self.generator) - 1) * torch.tensor([1.0, 1.0, 0.4, 0.4])

    def push(self, action: torch.Tensor) -> torch.Tensor:
        place, speed = self.state[:, :2], self.state[:, 2:]
        speed = 0.95 * speed + 0.25 * _PUSHES[action]
        place = (place + 0.4 * speed).clamp(-2, 2)
        again = torch.rand(len(place), generator=self.generator) < 0.04
        self.state = torch.where(again[:, None], self._fresh(len(place)), torch.cat([place, speed], dim=1))
        return 0.5 - place.norm(dim=1)


def _played(model: nn.Module, pucks: _Pucks, moments: int = 12) -> _Batch:
    """States, actions and discounted returns of some moments."""
    states, actions, rewards, returns = [], [], [], list[torch.Tensor]()
    with torch.no_grad():
        for _ in range(moments):
            states.append(pucks.state)
            scores, _ = model(pucks.state)
            actions.append(scores.softmax(1).multinomial(1, generator=pucks.generator)[:, 0])
            rewards.append(pucks.push(actions[-1]))
        _, worth = model(pucks.state)
    for reward in reversed(rewards):
        worth = 0.1 * reward + 0.9 * worth
        returns.insert(0, worth)
    return torch.cat(states), torch.cat(actions), torch.cat(returns)


@broken(
    rules=("learning-rate",), words=("learning rate",),
    nodes=("model.trunk.0.weight", "model.actor.weight", "model.critic.weight"),
)  # fmt: skip
def pucks_pushed_at_too_high_a_rate(lab: Lab) -> None:
    """An actor with a critic is trained at a learning rate of a tenth, at which policy and values swing about.

    Source: AutoTrainer (ICSE 2021), oscillating loss, mended by a lower learning rate.
    """
    model, pucks = _ActorCritic(), _Pucks(32, 0)
    rate = 5e-3 if lab.fixed else 0.1  # set-up bug: pucks_pushed_at_too_high_a_rate
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    lab.recorder.watch(model, optimizer)
    for _ in range(lab.steps):
        state, action, returned = _played(model, pucks)
        with lab.recorder.step("train"):
            scores, worth = model(state)
            chances = scores.log_softmax(1)
            advantage = (returned - worth).detach()
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-6)
            policy = -(chances.gather(1, action[:, None])[:, 0] * advantage).mean()
            entropy = -(chances.exp() * chances).sum(1).mean()
            loss = policy + 0.5 * F.mse_loss(worth, returned) - 0.01 * entropy
            descend(loss, optimizer)


class _Recommender(nn.Module):
    """Vectors of users and films, and what is known of the film."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.films = nn.Embedding(200, 8), nn.Embedding(150, 8)
        nn.init.normal_(self.users.weight, std=0.3)
        nn.init.normal_(self.films.weight, std=0.3)
        self.mlp = mlp(19, 48, 24, 1)

    def forward(self, user: torch.Tensor, film: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        return self.mlp(torch.cat([self.users(user), self.films(film), known], dim=1))[:, 0]


def _films() -> torch.Tensor:
    """The year, minutes and number of votes of films ``(150, 3)``, as the catalogue has them."""
    generator = torch.Generator().manual_seed(3)
    spread = torch.randn(150, 3, generator=generator)
    return torch.stack([1990 + 15 * spread[:, 0], 110 + 20 * spread[:, 1], (7 + spread[:, 2]).exp()], dim=1).round()


def _ratings(number: int, known: torch.Tensor) -> _Batch:
    """Who ``(256,)`` saw what, what is known of it, and the standardised rating."""
    generator = torch.Generator().manual_seed(number)
    taste = torch.Generator().manual_seed(4)
    users, films = torch.randn(200, 2, generator=taste), torch.randn(150, 2, generator=taste)
    user, film = torch.randint(200, (256,), generator=generator), torch.randint(150, (256,), generator=generator)
    facts = data.standardised(torch.cat([_films()[:, :2], _films()[:, 2:].log()], dim=1))
    liked = 0.6 * users[user, 0] + 0.4 * films[film, 0] + 0.4 * facts[film, 2]
    liked = liked + 0.6 * facts[film, 0] * users[user, 1].sign()
    return user, film, known[film], (liked + 0.3 * torch.randn(256, generator=generator)) / 1.1


@broken(rules=("input-scale", "extreme-features"), words=("standardis", "unscaled"), nodes=("input", "model.mlp.0"))
def votes_beside_vectors(lab: Lab) -> None:
    """Year and number of votes stand beside the vectors of user and film as they are, thousands beside tenths.

    Source: UMLAUT (CHI 2021), check_input_normalization: input not between -1 and 1.
    """
    known = _films()
    if lab.fixed:
        known[:, 2] = known[:, 2].log()
        known = data.standardised(known)  # set-up bug: votes_beside_vectors
    model = _Recommender()

    def loss_of(user: torch.Tensor, film: torch.Tensor, facts: torch.Tensor, rating: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(user, film, facts), rating)

    after = lab.validating(model, lambda number: _ratings(9000 + number, known), loss_of)
    lab.fit(model, lambda number: _ratings(number, known), loss_of, lr=1e-2, after=after)
