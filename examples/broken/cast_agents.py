"""Mistakes in agents that learn from what they are rewarded for, as dice drew them from collections of faults."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Categorical

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Rollout = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
_MOVES = torch.tensor([[0, 1], [0, -1], [1, 0], [-1, 0]])


class _Rooms:
    """Forty-eight rooms of nine by nine tiles; in each an agent looks for its cake, which is then put elsewhere."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.agent, self.cake = self._tiles(), self._tiles()

    def _tiles(self) -> torch.Tensor:
        return torch.randint(9, (48, 2), generator=self.generator)

    def seen(self) -> torch.Tensor:
        return torch.cat([(self.agent - 4) / 2.6, (self.cake - 4) / 2.6], dim=1)

    def move(self, action: torch.Tensor) -> torch.Tensor:
        """The rewards: one for a cake, and a little for having come nearer."""
        before = (self.agent - self.cake).abs().sum(1)
        self.agent = (self.agent + _MOVES[action]).clamp(0, 8)
        distance = (self.agent - self.cake).abs().sum(1)
        found = distance == 0
        self.cake = torch.where(found[:, None], self._tiles(), self.cake)
        return found.float() + 0.2 * (before - distance).clamp(-1, 1)


class _ActorCritic(nn.Module):
    """A policy and a value over common features."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
        self.policy, self.value = nn.Linear(64, 4), nn.Linear(64, 1)

    def forward(self, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.body(seen)
        return self.policy(features), self.value(features)[..., 0]

    def start_anew(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()


class _Learner(nn.Module):
    """Holds the network that a worker process acts with and learns."""

    def __init__(self, network: _ActorCritic) -> None:
        super().__init__()
        self.network = network


@torch.no_grad()
def _play(model: _ActorCritic, rooms: _Rooms, moves: int = 12, discount: float = 0.8) -> _Rollout:
    """What was seen and done, and what the return was from there on."""
    seen, actions, rewards = [], [], []
    for _ in range(moves):
        seen.append(rooms.seen())
        actions.append(Categorical(logits=model(seen[-1])[0]).sample())
        rewards.append(rooms.move(actions[-1]))
    returns: list[torch.Tensor] = []
    following = model(rooms.seen())[1]
    for reward in reversed(rewards):
        following = reward + discount * following
        returns.insert(0, following)
    return torch.stack(seen), torch.stack(actions), torch.stack(returns)


@broken(rules=("weights-reset",), words=("checkpoint", "anew", "strict", "reset"), nodes=("model",), onset=50)
def sessions_resumed_without_a_match(lab: Lab) -> None:
    """Saved with the prefix of the learner, no name of the checkpoint matches; loaded loosely, it leaves fresh weights.

    Source: Humbatova et al. (ICSE 2020), taxonomy of real faults: wrong management of the trained model (reloading).
    """
    model, rooms = _ActorCritic(), _Rooms(1)
    learner = _Learner(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    lab.recorder.watch(model, optimizer)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "learner.pt"
        for session in range(3):
            if session:
                model.start_anew()
                saved = torch.load(file)
                resumed = learner if lab.fixed else model
                resumed.load_state_dict(saved, strict=False)  # set-up bug: sessions_resumed_without_a_match
            for _ in range(50):
                seen, actions, returns = _play(model, rooms)
                with lab.recorder.step("train"):
                    scores, value = model(seen)
                    policy = Categorical(logits=scores)
                    advantage = returns - value.detach()
                    actor = -(policy.log_prob(actions) * advantage).mean() - 0.01 * policy.entropy().mean()
                    descend(actor + 0.5 * F.mse_loss(value, returns), optimizer)
            torch.save(learner.state_dict(), file)


class _Pucks:
    """Sixty-four pucks on ice of one dimension, to be kept near the middle by pushes to the left or to the right."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.state = torch.randn(64, 2, generator=self.generator)

    def push(self, action: torch.Tensor) -> torch.Tensor:
        """The rewards: the nearer to the middle, the more."""
        place, speed = self.state.unbind(1)
        wind = 0.1 * torch.randn(64, generator=self.generator)
        speed = (0.9 * speed + 0.25 * (2 * action - 1) + wind).clamp(-2, 2)
        place = (place + 0.5 * speed).clamp(-3, 3)
        self.state = torch.stack([place, speed], dim=1)
        return 1 - place.abs()


def _tower(outputs: int, activation: type[nn.Module]) -> nn.Sequential:
    """Six hidden layers."""
    layers: list[nn.Module] = []
    for inputs in (2, 48, 48, 48, 48, 48):
        layers += [nn.Linear(inputs, 48), activation()]
    tower = nn.Sequential(*layers, nn.Linear(48, outputs))
    for module in tower:
        if isinstance(module, nn.Linear):
            nn.init.orthogonal_(module.weight, 2**0.5 if module.out_features == 48 else 0.1)
            nn.init.zeros_(module.bias)
    return tower


class _Pusher(nn.Module):
    """An actor and a critic that share nothing."""

    def __init__(self, activation: type[nn.Module]) -> None:
        super().__init__()
        self.actor, self.critic = _tower(2, activation), _tower(1, activation)


@torch.no_grad()
def _slide(model: _Pusher, pucks: _Pucks, moves: int = 10, discount: float = 0.9) -> _Rollout:
    """What was seen and done, and the return from there on."""
    seen, actions, rewards = [], [], []
    for _ in range(moves):
        seen.append(pucks.state)
        actions.append(Categorical(logits=model.actor(pucks.state)).sample())
        rewards.append(pucks.push(actions[-1]))
    returns: list[torch.Tensor] = []
    following = model.critic(pucks.state)[:, 0]
    for reward in reversed(rewards):
        following = reward + discount * following
        returns.insert(0, following)
    return torch.stack(seen), torch.stack(actions), torch.stack(returns)


@broken(
    rules=("hidden-sigmoid", "vanishing-gradient"), words=("sigmoid", "vanish"), nodes=("model.actor", "model.critic")
)
def pucks_pushed_by_six_sigmoids(lab: Lab) -> None:
    """The six hidden layers of the actor and of the critic are sigmoids, through which next to nothing comes back.

    Source: DeepDiagnosis (ICSE 2022), vanishing gradient: sigmoid in hidden layers.
    """
    model = _Pusher(nn.ReLU if lab.fixed else nn.Sigmoid)  # set-up bug: pucks_pushed_by_six_sigmoids
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    lab.recorder.watch(model, optimizer)
    pucks = _Pucks(3)
    for _ in range(lab.steps):
        seen, actions, returns = _slide(model, pucks)
        with lab.recorder.step("train"):
            value = model.critic(seen)[..., 0]
            advantage = returns - value.detach()
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-6)
            policy = Categorical(logits=model.actor(seen))
            actor = -(policy.log_prob(actions) * advantage).mean() - 0.01 * policy.entropy().mean()
            optimizer.zero_grad()
            (actor + 0.5 * F.smooth_l1_loss(value, returns)).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
