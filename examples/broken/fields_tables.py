"""Mistakes that people report from trainings on tables, ratings, graphs and games."""

from __future__ import annotations

from collections import deque
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _turbines(rows: int, seed: int) -> _Batch:
    """Wind, air and rotor of turbines, standardised ``(rows, 3)``, and the watts that they give ``(rows, 1)``."""
    generator = torch.Generator().manual_seed(seed)
    shares = torch.rand(rows, 3, generator=generator)
    wind, air, radius = 3 + 9 * shares[:, 0], 1.0 + 0.3 * shares[:, 1], 20 + 20 * shares[:, 2]
    watts = 0.5 * 0.4 * air * torch.pi * radius**2 * wind**3
    watts = watts * (1 + 0.03 * torch.randn(rows, generator=generator))
    return (shares - 0.5) * 12**0.5, watts[:, None]


@broken(rules=("target-scale",), words=("standardise the target", "scale the target"), nodes=("target",))
def cube_of_the_wind_in_watts(lab: Lab) -> None:
    """The target grows with the cube of the wind and is fitted in watts, up to a million, not normalised as the inputs.

    Source: discuss.pytorch.org 96648, a network could not learn cubes until inputs and targets were normalised.
    """
    x, watts = _turbines(2000, seed=1)
    mean, std = (watts.mean(), watts.std()) if lab.fixed else (0.0, 1.0)  # set-up bug: cube_of_the_wind_in_watts
    unseen_x, unseen_watts = _turbines(300, seed=2)
    model = nn.Sequential(nn.Linear(3, 50), nn.ReLU(), nn.Linear(50, 50), nn.ReLU(), nn.Linear(50, 1))
    optimizer, criterion = torch.optim.Adam(model.parameters(), lr=3e-3), nn.MSELoss()
    loader = DataLoader(TensorDataset(x, (watts - mean) / std), batch_size=64, shuffle=True, drop_last=True)
    lab.recorder.watch(model, optimizer)
    unseen = unseen_x, (unseen_watts - mean) / std
    after = lab.validating(model, lambda _: unseen, lambda x, y: criterion(model(x), y))
    for epoch in range(5):
        for place, (rows, target) in enumerate(loader):
            with lab.recorder.step("train"):
                optimizer.zero_grad()
                loss = criterion(model(rows), target)
                loss.backward()
                optimizer.step()
            after(epoch * len(loader) + place)


_USERS, _ITEMS, _SEEN = 80, 400, 30


def _shop() -> _Batch:
    """What each of the users bought ``(80, 36)``: items near their taste."""
    generator = torch.Generator().manual_seed(3)
    taste = F.normalize(torch.randn(_USERS, 3, generator=generator))
    kind = F.normalize(torch.randn(_ITEMS, 3, generator=generator))
    luck = -torch.rand(_USERS, _ITEMS, generator=generator).log().neg().log()
    bought = (15 * taste @ kind.T + luck).topk(_SEEN + 6).indices
    order = torch.rand(bought.shape, generator=generator).argsort(1)
    bought = bought.gather(1, order)
    return bought[:, :_SEEN], bought[:, _SEEN:]


class _Factors(nn.Module):
    """Logistic matrix factorisation: vectors of users and of items, and what is popular."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(_USERS, width), nn.Embedding(_ITEMS, width)
        self.popular = nn.Embedding(_ITEMS, 1)
        for table in (self.users, self.items, self.popular):
            nn.init.normal_(table.weight, std=0.3)

    def forward(self, user: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        return (self.users(user)[:, None] * self.items(item)).sum(2) + self.popular(item)[..., 0]


@broken(words=("negative",), nodes=("model.items", "model.popular", "target", "input"))
def negatives_limited_by_the_width(lab: Lab) -> None:
    """The number of negatives is limited by the second size of the items' table, its width, in place of its length.

    Source: benfred/implicit 745, LMF performs little better than random, its first bug.
    """
    model, (seen, later) = _Factors(), _shop()
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.2, weight_decay=1e-4)
    items = model.items.weight.shape[0 if lab.fixed else 1]  # set-up bug: negatives_limited_by_the_width

    def batch(number: int, bought: torch.Tensor, limit: int, users: int) -> _Batch:
        generator = torch.Generator().manual_seed(number)
        user = torch.randperm(_USERS, generator=generator)[:users]
        negative = torch.randint(_ITEMS, (users, min(limit, 3 * bought.shape[1])), generator=generator)
        return user, bought[user], negative

    def loss_of(user: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
        scores = model(user, torch.cat([positive, negative], dim=1))
        wanted = torch.cat([torch.ones_like(positive), torch.zeros_like(negative)], dim=1).float()
        return F.binary_cross_entropy_with_logits(scores, wanted)

    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        rows = batch(number, seen, items, 24)
        with lab.recorder.step("train"):
            descend(loss_of(*rows), optimizer)
        lab.validate(lambda n: batch(9000 + n, later, _ITEMS, _USERS), loss_of, number)


def _papers() -> _Batch:
    """Words of papers ``(300, 24)``, who cites whom ``(300, 300)``, and their fields of four ``(300, 4)``."""
    generator = torch.Generator().manual_seed(5)
    fields = (torch.rand(300, 4, generator=generator) < 0.4).float()
    words = fields @ torch.randn(4, 24, generator=generator) + 1.5 * torch.randn(300, 24, generator=generator)
    close = 0.5 * fields @ fields.T - (fields[:, None] - fields).abs().sum(2)
    cites = (torch.rand(300, 300, generator=generator) < 0.1 * close.exp()).float().triu(1)
    cites = cites + cites.T + torch.eye(300)
    degree = cites.sum(1).rsqrt()
    return words / 2, degree[:, None] * cites * degree, fields


class _Gcn(nn.Module):
    """Two graph convolutions."""

    def __init__(self, *, log_softmax: bool) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Linear(24, 32), nn.Linear(32, 4)
        self.log_softmax = log_softmax

    def forward(self, x: torch.Tensor, adjacency: torch.Tensor) -> torch.Tensor:
        x = F.dropout(F.relu(adjacency @ self.conv1(x)), 0.3, self.training)
        x = adjacency @ self.conv2(x)
        return F.log_softmax(x, dim=1) if self.log_softmax else x  # bug: log_softmax_kept_for_several_fields


@broken(
    rules=("activation-before-loss", "unreachable-targets"), words=("softmax",), nodes=("model", "prediction", "loss"),
)  # fmt: skip
def log_softmax_kept_for_several_fields(lab: Lab) -> None:
    """A paper may be of several fields, but its scores still go through a log-softmax, so that no chance exceeds 0.5.

    Source: pyg-team/pytorch_geometric 2916, a GCN predicts one label only, replace log_softmax by a sigmoid.
    """
    words, adjacency, fields = _papers()
    model = _Gcn(log_softmax=not lab.fixed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=5e-4)
    criterion = nn.BCEWithLogitsLoss()
    train = torch.arange(300) < 200

    def loss_of(nodes: torch.Tensor) -> torch.Tensor:
        return criterion(model(words, adjacency)[nodes], fields[nodes])

    lab.fit(model, lambda _: (train,), loss_of, optimizer, after=lab.validating(model, lambda _: (~train,), loss_of))


class _Walkers:
    """Sixty-four walkers on a board of nine by nine, who shall get to their flags."""

    moves = torch.tensor([[0, 0], [0, 1], [0, -1], [1, 0], [-1, 0]])

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.at, self.flag = torch.randint(9, (2, 64, 2), generator=self.generator)

    def see(self) -> torch.Tensor:
        return torch.cat([self.at - 4, self.flag - 4, self.flag - self.at], dim=1) / 4

    def walk(self, action: torch.Tensor) -> torch.Tensor:
        before, to = (self.at - self.flag).abs().sum(1), self.at + self.moves[action]
        outside = (to != to.clamp(0, 8)).any(1)
        self.at = to.clamp(0, 8)
        reward = (before - (self.at - self.flag).abs().sum(1)).float() - 0.5 * outside
        there = (self.at == self.flag).all(1) & (before > 0)
        return reward + 5 * there


@broken(rules=("learning-rate",), words=("learning rate",), nodes=("model.0.weight", "model.2.weight", "model.2.bias"))
def policy_pushed_too_far(lab: Lab) -> None:
    """REINFORCE has a learning rate of 0.2, so that a few lucky walks decide for one direction for good.

    Source: discuss.pytorch.org 160728, a policy gradient agent heads for walls, mended by a lower learning rate.
    """
    model = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5))
    rate = 5e-3 if lab.fixed else 0.2  # set-up bug: policy_pushed_too_far
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        board = _Walkers(number)
        with lab.recorder.step("train") as step:
            said, rewards = [], []
            for _ in range(4):
                policy = torch.distributions.Categorical(logits=model(board.see()))
                action = policy.sample()
                said.append(policy.log_prob(action))
                rewards.append(board.walk(action))
            returns = torch.stack(rewards).flip(0).cumsum(0).flip(0)
            advantage = (returns - returns.mean(1, keepdim=True)) / (returns.std() + 1e-6)
            step.record("return", returns[0].mean())
            descend(-(torch.stack(said) * advantage).mean(), optimizer)


class _Poles:
    """Thirty-two carts with poles; whoever falls begins anew."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(1)
        self.state = self.upright(32)

    def upright(self, rows: int) -> torch.Tensor:
        return 0.1 * torch.rand(rows, 4, generator=self.generator) - 0.05

    def push(self, action: torch.Tensor) -> _Batch:
        before = self.state
        _, speed, angle, turn = before.unbind(1)
        force = (20.0 * action - 10 + 0.05 * turn**2 * angle.sin()) / 1.1
        turning = (9.8 * angle.sin() - angle.cos() * force) / (0.5 * (4 / 3 - 0.1 * angle.cos() ** 2 / 1.1))
        pushing = force - 0.05 * turning * angle.cos() / 1.1
        after = before + 0.02 * torch.stack([speed, pushing, turn, turning], dim=1)
        fallen = (after[:, 0].abs() > 2.4) | (after[:, 2].abs() > 0.21)
        self.state = torch.where(fallen[:, None], self.upright(32), after)
        return before, action, after, fallen.float()


@broken(
    rules=("growing-targets",), words=("target network", "target net", "bootstrap"), nodes=("target", "loss", "model"),
)  # fmt: skip
def values_taken_from_the_net_itself(lab: Lab) -> None:
    """What follows is valued by the very network that is trained, since the deep Q-learning has no target network.

    Source: keon/deep-q-learning 37, ``dqn.py`` does not learn, as it has none; ``ddqn.py`` does.
    """
    model = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    scale = torch.tensor([2.4, 2.0, 0.21, 2.0])
    target = (
        deepcopy(model).requires_grad_(False) if lab.fixed else model
    )  # set-up bug: values_taken_from_the_net_itself
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    lab.recorder.watch(model, optimizer)
    poles, memory = _Poles(), deque[_Batch](maxlen=200)
    for number in range(lab.steps):
        for _ in range(3):
            with torch.no_grad():
                best = model(poles.state / scale).argmax(1)
            random = torch.rand(32, generator=poles.generator) < max(0.1, 1 - number / 40)
            memory.append(poles.push(torch.where(random, torch.randint(2, (32,), generator=poles.generator), best)))
        state, action, after, fallen = (torch.cat(part) for part in zip(*memory, strict=True))
        rows = torch.randint(len(state), (128,), generator=poles.generator)
        with lab.recorder.step("train"):
            value = model(state[rows] / scale).gather(1, action[rows, None])[:, 0]
            with torch.no_grad():
                following = target(after[rows] / scale).amax(1)
            descend(F.mse_loss(value, 1 + 0.99 * (1 - fallen[rows]) * following), optimizer)
        if lab.fixed and number % 8 == 7:
            target.load_state_dict(model.state_dict())


def _patients(number: int, rows: int = 64) -> _Batch:
    """Thirty measurements ``(rows, 30)``, and which of forty diseases each patient has ``(rows, 40)``."""
    generator = torch.Generator().manual_seed(number)
    signs = torch.randn(40, 30, generator=torch.Generator().manual_seed(6))
    has = (torch.rand(rows, 40, generator=generator) < 0.05).float()
    return (has @ signs + 0.3 * torch.randn(rows, 30, generator=generator)) / 1.5, has


@broken(rules=("imbalanced-targets",), words=("imbalance", "sparse", "rare", "pos_weight"), nodes=("target", "loss"))
def forty_labels_hardly_any_of_them_true(lab: Lab) -> None:
    """Of forty labels two are true on average, and the entropy, which weighs them like the others, says none of them.

    Source: Stack Overflow (example-a.com/answer/79474065), multi-label with sparse outcomes, mended by ``pos_weight``.
    """
    model = nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 40))
    weight = torch.full((40,), 12.0) if lab.fixed else None
    criterion = nn.BCEWithLogitsLoss(pos_weight=weight)  # set-up bug: forty_labels_hardly_any_of_them_true
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    after = lab.validating(model, lambda number: _patients(9000 + number), lambda x, y: criterion(model(x), y))
    lab.fit(model, _patients, lambda x, y: criterion(model(x), y), optimizer, after=after)
