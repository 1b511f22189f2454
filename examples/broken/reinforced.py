"""Mistakes of agents that learn from rewards: what a target is made of, and where gradients go."""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Batches, Lab, descend
from stepscope.examples.broken.nets import mlp

PLACES = 8


def _walks(number: int) -> tuple[torch.Tensor, ...]:
    """Where an agent stands on a line of eight places (one-hot), where it goes, and whether it has arrived."""
    generator = torch.Generator().manual_seed(number)
    place = torch.randint(PLACES, (64,), generator=generator)
    arrived = place == PLACES - 1
    onwards = torch.where(arrived, torch.zeros_like(place), place + 1)
    return F.one_hot(place, PLACES).float(), F.one_hot(onwards, PLACES).float(), arrived.float()


def _learn_values(lab: Lab, *, reward_at_the_end: bool, discount: float, follow: bool, stop: bool) -> None:
    """Temporal differences with a target network, which follows the net every five steps and stops at the end."""
    value = mlp(PLACES, 32, 1)
    target = deepcopy(value).requires_grad_(False)
    optimizer = torch.optim.Adam(value.parameters(), lr=1e-2)
    lab.recorder.watch({"value": value, "target": target}, optimizer)
    for number in range(lab.steps):
        here, onwards, arrived = _walks(number)
        with lab.recorder.step("train"):
            reward = arrived if reward_at_the_end else torch.ones_like(arrived)
            later = target(onwards)[:, 0]
            if stop:
                later = later * (1 - arrived)
            wanted = reward + discount * later  # bug: value_beyond_the_end
            descend(F.mse_loss(value(here)[:, 0], wanted), optimizer)
        if follow and number % 5 == 4:
            target.load_state_dict(value.state_dict())  # set-up bug: target_network_never_follows


@broken(
    rules=("unchanged-parameters",), words=("never updated", "never change", "does not follow", "target network"),
    nodes=("target", "target.0", "target.2", "target.0.weight", "target.2.weight"),
)  # fmt: skip
def target_network_never_follows(lab: Lab) -> None:
    """The target network is never updated, so that values are learned from what a random net says of the next place.

    Source: JORLDY issue 120, AgileRL pull request 464, thesouther/MARL issue 8 (it is loaded from itself).
    """
    _learn_values(lab, reward_at_the_end=True, discount=0.9, follow=lab.fixed, stop=True)


@broken(
    words=("targets grow", "growing target", "grow without", "keeps growing", "keep growing"),
    nodes=("target", "target.2", "loss", "value", "value.2"),
)  # fmt: skip
def value_beyond_the_end(lab: Lab) -> None:
    """The value after the end of an episode is not left out: it is that of the next episode's start, for ever more.

    Source: rlevo pull request 344, spinningup pull request 233: what to bootstrap from at the end of an episode.
    """
    _learn_values(lab, reward_at_the_end=False, discount=0.99, follow=True, stop=lab.fixed)


class ActorCritic(nn.Module):
    """A policy of two actions and the reward it may expect, from thirty measurements."""

    def __init__(self) -> None:
        super().__init__()
        self.actor, self.critic = mlp(30, 32, 2), mlp(30, 32, 1)

    def act(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Random actions ``(batch,)`` by their probabilities, and the logarithms of these."""
        scores = self.actor(x).log_softmax(1)
        action = (scores.detach() - torch.empty_like(scores).exponential_().log()).argmax(1)
        return action, scores[torch.arange(len(x)), action]


def _cases() -> Batches:
    """Tumours whose harm matters: 3 for a right decision on the harmless, 1 on others, nothing for a wrong one."""
    return data.draw(data.tumours(), 128)


def _reward(action: torch.Tensor, harmless: torch.Tensor) -> torch.Tensor:
    return (action == harmless).float() * (1 + 2 * harmless)


@broken(
    rules=("broadcast-target",), words=("broadcast",),
    nodes=("model.critic", "model.critic.2", "loss", "target"),
)  # fmt: skip
def rewards_minus_a_column_of_values(lab: Lab) -> None:
    """Rewards [B] minus values [B, 1] compare each reward with the values of all samples.

    Source: Deep-Reinforcement-Learning-Hands-On issue 74, an advantage of shape [128, 128].
    """
    model = ActorCritic()

    def loss_of(x: torch.Tensor, harmless: torch.Tensor) -> torch.Tensor:
        action, chance = model.act(x)
        value = model.critic(x)
        if lab.fixed:
            value = value[:, 0]
        advantage = _reward(action, harmless) - value  # bug: rewards_minus_a_column_of_values
        return advantage.square().mean() - (advantage.detach() * chance).mean()

    lab.fit(model, _cases(), loss_of, lr=1e-2)


@broken(
    words=("advantage", "detach", "two losses", "should not reach"),
    nodes=("model.critic", "model.critic.2", "model.critic.0", "model.critic.2.bias", "loss"),
)  # fmt: skip
def critic_trained_by_the_actor(lab: Lab) -> None:
    """The advantage is not detached, so that the actor's loss, too, moves the critic, away from the rewards.

    Source: Gymnasium issue 1494, keras-io issue 194, baby-steps-of-rl issue 16.
    """
    model = ActorCritic()

    def loss_of(x: torch.Tensor, harmless: torch.Tensor) -> torch.Tensor:
        action, chance = model.act(x)
        advantage = _reward(action, harmless) - model.critic(x)[:, 0]
        weight = advantage.detach() if lab.fixed else advantage
        return 0.01 * advantage.square().mean() - (weight * chance).mean()  # bug: critic_trained_by_the_actor

    lab.fit(model, _cases(), loss_of, lr=3e-3)


@broken(
    rules=("weights-reset",), words=("overwr", "copied", "reset"),
    nodes=("value", "value.0.weight", "value.2.weight", "target", "loss"), onset=6,
)  # fmt: skip
def net_overwritten_by_its_target(lab: Lab) -> None:
    """The weights are copied the wrong way: every six steps the net gets those of its target network.

    Source: TrainCheck (OSDI 2025), parameters that are overwritten; target networks that are loaded from themselves.
    """
    value = mlp(PLACES, 32, 1)
    target = deepcopy(value).requires_grad_(False)
    optimizer = torch.optim.Adam(value.parameters(), lr=1e-2)
    lab.recorder.watch({"value": value, "target": target}, optimizer)
    for number in range(lab.steps):
        here, onwards, arrived = _walks(number)
        with lab.recorder.step("train"):
            wanted = arrived + 0.9 * target(onwards)[:, 0] * (1 - arrived)
            descend(F.mse_loss(value(here)[:, 0], wanted), optimizer)
        if number % 6 == 5:
            source, copy = (value, target) if lab.fixed else (target, value)
            copy.load_state_dict(source.state_dict())  # set-up bug: net_overwritten_by_its_target
