"""Mistakes of nets that learn from rewards, drawn from reports."""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import mlp

_Batch = tuple[torch.Tensor, ...]
ROOMS, DOORS = 8, 6


class _Castle:
    """Eight rooms with six doors each, most of them locked; one leads on, others back, and the last to a treasure."""

    def __init__(self) -> None:
        chance = torch.Generator().manual_seed(5)
        self.behind = (torch.rand(ROOMS, DOORS, generator=chance) * torch.arange(ROOMS)[:, None]).long().clamp(min=1)
        self.open = torch.zeros(ROOMS, DOORS).scatter(
            1, torch.rand(ROOMS, DOORS, generator=chance).argsort(1)[:, :2], 1
        )
        self.open[torch.arange(ROOMS), 0] = 1
        self.behind[:, 0] = (torch.arange(ROOMS) + 1) % ROOMS

    def moves(self, number: int) -> _Batch:
        """Room, open door, reward, room behind, and the doors that are open there, for 128 moves by chance."""
        chance = torch.Generator().manual_seed(number)
        room = torch.randint(ROOMS, (128,), generator=chance)
        door = torch.multinomial(self.open[room], 1, generator=chance)[:, 0]
        there = self.behind[room, door]
        reward = torch.where(there == 0, 0.0, -3.0)
        return F.one_hot(room, ROOMS).float(), door, reward, F.one_hot(there, ROOMS).float(), self.open[there]

    @torch.no_grad()
    def gain(self, value: nn.Module) -> torch.Tensor:
        """What the best open doors bring in twenty moves."""
        best = (value(torch.eye(ROOMS)) - 1e9 * (1 - self.open)).argmax(1)
        room, gained = torch.arange(ROOMS), torch.zeros(ROOMS)
        for _ in range(20):
            room = self.behind[room, best[room]]
            gained += (room == 0).float()
        return gained.mean()


@broken(words=("illegal", "action mask", "never tried", "never chosen"), nodes=("target", "target_net", "loss"))
def locked_doors_in_the_target(lab: Lab) -> None:
    """The greatest value of the next state is taken over all actions, those too that are illegal there and never tried.

    Source: tianshou issue 309, the action mask of obs_next is not used in _target_q.
    """
    castle, value = _Castle(), mlp(ROOMS, 64, DOORS)
    target = deepcopy(value).requires_grad_(False)
    optimizer = torch.optim.Adam(value.parameters(), 5e-3)
    lab.recorder.watch({"value": value, "target_net": target}, optimizer)
    for number in range(240):
        here, door, reward, there, mask = castle.moves(number)
        with lab.recorder.step("train"):
            later = target(there)
            if lab.fixed:
                later = later.masked_fill(mask == 0, -1e9)
            wanted = reward + 0.9 * later.max(1).values  # bug: locked_doors_in_the_target
            descend(F.smooth_l1_loss(value(here).gather(1, door[:, None])[:, 0], wanted), optimizer)
        if number % 8 == 7:
            target.load_state_dict(value.state_dict())
            lab.recorder.scalar("gain", castle.gain(value))


class _Advantage(nn.Module):
    """The value of a place, the best move there, and how much worse other moves are: a parabola."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh())
        self.V, self.mu, self.L = nn.Linear(48, 1), nn.Linear(48, 2), nn.Linear(48, 4)

    def forward(self, place: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        seen = self.body(place)
        lower = self.L(seen).view(-1, 2, 2).tril(-1) + torch.diag_embed(
            self.L(seen).view(-1, 2, 2).diagonal(0, 1, 2).exp()
        )
        return self.V(seen), self.mu(seen).tanh(), lower

    def quality(self, place: torch.Tensor, move: torch.Tensor) -> torch.Tensor:
        value, best, lower = self(place)
        away = ((move - best)[:, None] @ lower).square().sum((1, 2))
        return value - 0.5 * away[:, None]


def _walks(number: int) -> _Batch:
    """Places ``(64, 2)``, moves, rewards, places after them, and whether the walk goes on."""
    chance = torch.Generator().manual_seed(number)
    place, move = (2 * torch.rand(64, 2, generator=chance) - 1 for _ in range(2))
    after = place + 0.6 * move
    far = after.square().sum(1, keepdim=True)
    return place, move, -far, after, (far > 0.05).float()


@broken(
    rules=("growing-targets",), words=("discount", "without bound", "keep growing"),
    nodes=("target", "target_net.V", "loss"),
)  # fmt: skip
def plus_instead_of_times(lab: Lab) -> None:
    """The target is ``reward + gamma * mask + value`` where the value should be multiplied by both.

    Source: ikostrikov/pytorch-ddpg-naf issue 16, typo in the implementation.
    """
    model = _Advantage()
    target = deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    lab.recorder.watch({"model": model, "target_net": target}, optimizer)
    gamma, tau = 0.9, 0.1
    for number in range(250):
        place, move, reward, after, mask = _walks(number)
        with lab.recorder.step("train"):
            next_value, _, _ = target(after)
            share = gamma * mask
            wanted = reward + (share * next_value if lab.fixed else share + next_value)  # bug: plus_instead_of_times
            descend(F.mse_loss(model.quality(place, move), wanted), optimizer)
        with torch.no_grad():
            for old, new in zip(target.parameters(), model.parameters(), strict=True):
                old.lerp_(new, tau)
            value, best, _ = model(place)
        lab.recorder.scalar("value", value.mean())
        lab.recorder.scalar("left to go", (place + 0.6 * best).norm(dim=1).mean())


def _totter(place: torch.Tensor, action: torch.Tensor, chance: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Where someone is after a step on a narrow bridge, and whether he has fallen off."""
    speed = place[:, 1] + 0.25 * (2 * action - 1) + 0.5 * place[:, 0] + 0.05 * torch.randn(len(place), generator=chance)
    after = torch.stack([place[:, 0] + 0.5 * speed, speed], dim=1)
    return after, (after[:, 0].abs() > 1).float()


@torch.no_grad()
def _steps_on_the_bridge(value: nn.Module) -> torch.Tensor:
    chance = torch.Generator().manual_seed(9)
    place, steps = 0.2 * torch.randn(64, 2, generator=chance), torch.zeros(64)
    standing = torch.ones(64)
    for _ in range(40):
        place, fell = _totter(place, value(place).argmax(1).float(), chance)
        standing = standing * (1 - fell)
        steps += standing
    return steps.mean()


def _memories() -> _Batch:
    """Two thousand steps by chance: place, action, place after it, and whether that was the end."""
    chance = torch.Generator().manual_seed(4)
    place = torch.randn(2000, 2, generator=chance) * torch.tensor([0.5, 0.4])
    action = torch.randint(2, (2000,), generator=chance)
    after, fell = _totter(place, action.float(), chance)
    return place, action, after, fell


@broken(words=("terminal", "end of an episode", "done mask"), nodes=("target", "target_net", "loss"))
def no_end_in_the_target(lab: Lab) -> None:
    """The value of what follows is counted even after the last step of an episode: falling down costs nothing.

    Source: cyoon1729/deep-Q-networks pull request 5, the loss of the agent with prioritised replay lacks the done_mask.
    """
    value = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    target = deepcopy(value).requires_grad_(False)
    optimizer = torch.optim.Adam(value.parameters(), 3e-3)
    lab.recorder.watch({"value": value, "target_net": target}, optimizer)
    place, action, after, done = _memories()
    priority = torch.ones(len(place))
    for number in range(250):
        chance = priority.pow(0.6) / priority.pow(0.6).sum()
        rows = torch.multinomial(chance, 64)
        weight = (len(place) * chance[rows]).pow(-0.4)
        with lab.recorder.step("train"):
            later = 0.95 * target(after[rows]).max(1).values
            if lab.fixed:
                later = later * (1 - done[rows])
            wanted = 1 + later  # bug: no_end_in_the_target
            error = value(place[rows]).gather(1, action[rows, None])[:, 0] - wanted
            descend((weight / weight.max() * error.square()).mean(), optimizer)
        priority[rows] = error.detach().abs() + 1e-3
        if number % 10 == 9:
            target.load_state_dict(value.state_dict())
            lab.recorder.scalar("steps on the bridge", _steps_on_the_bridge(value))


def _rounds(number: int) -> _Batch:
    """What a player sees ``(96, 6)``, how rich the table is ``(96,)``, and the right one of four cards ``(96,)``."""
    chance = torch.Generator().manual_seed(number)
    seen = torch.randn(96, 6, generator=chance)
    return seen, 6 * seen[:, 4] - 4 * seen[:, 5], seen[:, :4].argmax(1)


class _Player(nn.Module):
    """A policy and a value on top of one body."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 64), nn.ReLU())
        self.policy, self.value = nn.Linear(64, 4), nn.Linear(64, 1)

    def forward(self, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        body = self.body(seen)
        return self.policy(body), self.value(body)


@broken(rules=("broadcast-target",), words=("broadcast", "different shapes"), nodes=("loss", "model.value"))
def advantage_of_all_with_all(lab: Lab) -> None:
    """Returns ``(n,)`` minus values ``(n, 1)`` are ``(n, n)``: each move is judged by the values of all other states.

    Source: PacktPublishing/Deep-Reinforcement-Learning-Hands-On issue 74, the shape of the advantage is [128, 128].
    """
    net = _Player()

    def loss_of(seen: torch.Tensor, riches: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        logits_v, value_v = net(seen)
        played = torch.distributions.Categorical(logits=logits_v.detach()).sample()
        vals_ref_v = riches + (played == right).float()
        lab.recorder.scalar("right", (played == right).float().mean())
        loss_value_v = F.mse_loss(value_v.squeeze(-1), vals_ref_v)
        log_prob_v = F.log_softmax(logits_v, dim=1)
        values = value_v.squeeze(-1) if lab.fixed else value_v
        adv_v = vals_ref_v - values.detach()  # bug: advantage_of_all_with_all
        log_prob_actions_v = adv_v * log_prob_v[range(len(seen)), played]
        entropy_loss_v = 0.01 * (log_prob_v.exp() * log_prob_v).sum(dim=1).mean()
        return loss_value_v - log_prob_actions_v.mean() + entropy_loss_v

    lab.fit(net, _rounds, loss_of, torch.optim.Adam(net.parameters(), lr=1e-2, eps=1e-3))
