"""Mistakes in agents that learn a policy, drawn by dice from published collections of training bugs."""

from __future__ import annotations

import torch
from torch import nn
from torch.distributions import Bernoulli, Categorical

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import VALIDATE_EVERY, Lab, descend


class _Player(nn.Module):
    """Tells how likely each of four buttons is to be pressed."""

    def __init__(self, *, apart: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 32), nn.Tanh())
        self.buttons = nn.Linear(32, 4)
        self.apart = apart

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        scores = self.buttons(self.body(seen))
        return scores.sigmoid() if self.apart else scores.softmax(1)  # bug: buttons_that_share_their_chance


def _screens(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What a player sees ``(128, 8)``, and which of the buttons are to be pressed ``(128, 4)``: any number of them."""
    wanted = torch.randn(8, 4, generator=torch.Generator().manual_seed(6))
    seen = torch.randn(128, 8, generator=torch.Generator().manual_seed(number))
    return seen, (seen @ wanted > 0).float()


@broken(rules=("several-labels",), words=("exclu", "several labels", "sigmoid"), nodes=("model", "model.buttons"))
def buttons_that_share_their_chance(lab: Lab) -> None:
    """Any of four buttons may be pressed together, but their chances come from one softmax, and never exceed 1 in all.

    Source: DeepLocalize and DeepFD, softmax for labels that do not exclude each other.
    """
    model = _Player(apart=lab.fixed)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    lab.recorder.watch(model, optimizer)
    for number in range(160):
        seen, right = _screens(number)
        with lab.recorder.step("train") as step:
            policy = Bernoulli(probs=model(seen).clamp(1e-4, 1 - 1e-4))
            pressed = policy.sample()
            reward = 2 * (pressed == right).float() - 1
            loss = -(policy.log_prob(pressed) * (reward - reward.mean(0))).sum(1).mean()
            descend(loss - 0.01 * policy.entropy().mean(), optimizer)
            step.record("reward", reward.mean())
        if number % VALIDATE_EVERY == VALIDATE_EVERY - 1:
            seen, right = _screens(9000 + number)
            with torch.no_grad(), lab.recorder.step("validation") as step:
                step.record("right", ((model(seen) > 0.5) == right.bool()).float().mean())


PAD = 0


def _commands(number: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Commands of three to six words out of 24, and which of four rooms each names in one of its words."""
    generator = torch.Generator().manual_seed(number)
    room = torch.randint(4, (48,), generator=generator)
    commands = []
    for row in range(48):
        length = int(torch.randint(3, 7, (1,), generator=generator))
        words = torch.randint(5, 24, (length,), generator=generator)
        words[int(torch.randint(length, (1,), generator=generator))] = room[row] + 1
        commands.append(words)
    return commands, room


class _Servant(nn.Module):
    """Reads a command, and says how likely it goes to each room, and what it hopes to get for it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(24, 16, padding_idx=PAD)
        self.gru = nn.GRU(16, 32, batch_first=True)
        self.actor, self.critic = nn.Linear(32, 4), nn.Linear(32, 1)

    def forward(self, words: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        _, state = self.gru(self.embed(words))
        return self.actor(state[0]), self.critic(state[0])[:, 0]


def _padded(commands: list[torch.Tensor], length: int) -> torch.Tensor:
    words = torch.full((len(commands), length), PAD)
    for row, command in enumerate(commands):
        words[row, : len(command)] = command
    return words


@broken(rules=("constant-data",), words=("padding", "padded"), nodes=("input.words", "model.embed", "model.gru"))
def commands_filled_up_to_sixty(lab: Lab) -> None:
    """Commands of six words at most are padded to sixty, and the GRU that reads to the end has forgotten them by then.

    Source: SageMaker Debugger, rule NLPSequenceRatio (batches mostly of padding).
    """
    length = 6 if lab.fixed else 60  # set-up bug: commands_filled_up_to_sixty
    model = _Servant()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    lab.recorder.watch(model, optimizer)
    for number in range(150):
        commands, room = _commands(number)
        words = _padded(commands, length)
        with lab.recorder.step("train") as step:
            scores, hope = model(words)
            policy = Categorical(logits=scores)
            gone = policy.sample()
            reward = (gone == room).float()
            advantage = (reward - hope).detach()
            critic_loss = 0.5 * (reward - hope).square().mean()
            loss = critic_loss - (policy.log_prob(gone) * advantage).mean() - 0.01 * policy.entropy().mean()
            descend(loss, optimizer)
            step.record("reward", reward.mean())
        if number % VALIDATE_EVERY == VALIDATE_EVERY - 1:
            commands, room = _commands(9000 + number)
            with torch.no_grad(), lab.recorder.step("validation") as step:
                step.record("right", (model(_padded(commands, length))[0].argmax(1) == room).float().mean())
