"""Mistakes in trainings of agents and of networks that draw, as people asked about them and were answered."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import VALIDATE_EVERY, Lab, descend
from stepscope.examples.broken.nets import mlp

_Batch = tuple[torch.Tensor, ...]


class _Autoencoder(nn.Module):
    """Pictures of 64 pixels as sixteen numbers."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(64, 64), activation, nn.Linear(64, 16))
        self.decode = nn.Sequential(nn.Linear(16, 64), activation, nn.Linear(64, 64))


class _Repair(nn.Module):
    """Restores codes of a trained autoencoder of which parts are lost."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.coder = _Autoencoder(activation)
        self.mend = nn.Sequential(nn.Linear(32, 96), nn.ReLU(), nn.Linear(96, 16))

    def forward(self, x: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        code = self.coder.encode(x) * kept
        return self.coder.decode(code + (1 - kept) * self.mend(torch.cat([code, kept], dim=1)))


@broken(words=("pretrained with", "another activation", "other activation", "tanh"), nodes=("model.coder",))
def coder_rebuilt_with_another_activation(lab: Lab) -> None:
    """The autoencoder was trained with tanh, and is rebuilt for the second stage of the training with ReLU.

    Source: sjenni/LearningToSpotArtifacts 1, activation functions not consistent with the pre-training.
    """
    x, y = data.pixels()
    trained = _Autoencoder(nn.Tanh())
    learning = torch.optim.Adam(trained.parameters(), lr=3e-3)
    draw = data.draw((x, y))
    for number in range(250):
        rows, _ = draw(number)
        descend(F.mse_loss(trained.decode(trained.encode(rows)), rows), learning)
    activation = nn.Tanh() if lab.fixed else nn.ReLU()
    model = _Repair(activation)  # set-up bug: coder_rebuilt_with_another_activation
    model.coder.load_state_dict(trained.state_dict())
    for parameter in model.coder.parameters():
        parameter.requires_grad_(False)
    unseen, _ = data.unseen_pixels()

    def batches(number: int) -> _Batch:
        rows = unseen if number >= 9000 else draw(500 + number)[0]
        generator = torch.Generator().manual_seed(number)
        return rows, (torch.rand(len(rows), 16, generator=generator) > 0.15).float()

    def loss_of(rows: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(rows, kept), rows)

    after = lab.validating(model, lambda number: batches(9000 + number), loss_of)
    lab.fit(model, batches, loss_of, torch.optim.Adam(model.mend.parameters(), lr=3e-3), after=after)


class _Vae(nn.Module):
    """A hidden layer on either side of four variables."""

    def __init__(self) -> None:
        super().__init__()
        self.enc, self.mean, self.logvar = nn.Linear(64, 96), nn.Linear(96, 4), nn.Linear(96, 4)
        self.dec = mlp(4, 96, 64)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        hidden = F.relu(self.enc(x))
        mean, logvar = self.mean(hidden), self.logvar(hidden)
        return self.dec(mean + (0.5 * logvar).exp() * torch.randn_like(mean)), mean, logvar


@broken(words=("kl term", "kl divergence", "kld", "the prior"), nodes=("loss", "model.logvar", "model.mean"))
def scenes_without_a_prior(lab: Lab) -> None:
    """The divergence from the prior is left out of a variational autoencoder, and what is drawn looks like nothing.

    Source: HiroIshida/mohou 199, fix: enable vae kld loss.
    """
    x, y = data.pixels()
    model, draw = _Vae(), data.draw((x, y), 96)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    lab.recorder.watch(model, optimizer)
    for number in range(240):
        rows, _ = draw(number)
        with lab.recorder.step("train"):
            rebuilt, mean, logvar = model(rows)
            kld = -0.5 * (1 + logvar - mean.pow(2) - logvar.exp()).sum(1).mean()
            loss = F.mse_loss(rebuilt, rows, reduction="sum") / len(rows)
            if lab.fixed:
                loss = loss + 2 * kld
            descend(loss, optimizer)  # bug: scenes_without_a_prior
        if number % VALIDATE_EVERY == VALIDATE_EVERY - 1:
            with torch.no_grad(), lab.recorder.step("validation") as step:
                drawn = model.dec(torch.randn(200, 4, generator=torch.Generator().manual_seed(number)))
                near = torch.cdist(drawn, x).amin(1).mean() + torch.cdist(x[:400], drawn).amin(1).mean()
                step.record("loss", near, type="loss")


_CELLS = 12


def _seen(cell: torch.Tensor) -> torch.Tensor:
    """What the agent sees in cells of a corridor: a few bumps over where it is ``(n, 5)``."""
    return torch.exp(-((cell[:, None].float() - torch.linspace(0, _CELLS - 1, 5)) ** 2) / 4)


def _values() -> torch.Tensor:
    """What going left or right is worth in each cell ``(12, 2)``: 1 at the right end, 0.8 of it a cell before."""
    worth = torch.zeros(_CELLS, 2)
    for _ in range(60):
        best = worth.amax(1)
        cells = torch.arange(_CELLS)
        worth = torch.stack([0.8 * best[(cells - 1).clamp(min=0)], 0.8 * best[(cells + 1).clamp(max=_CELLS - 1)]], 1)
        worth[_CELLS - 2, 1] = 1.0
        worth[_CELLS - 1] = 0.0
    return worth


@broken(rules=("tiny-batch",), words=("replay", "correlated", "latest", "single transition"), nodes=("input", "model"))
def learns_from_the_latest_move_only(lab: Lab) -> None:
    """The agent learns from the move that it has just made, not from a batch of all that it remembers.

    Source: openai/gym 1577, Q-learning doesn't improve on CartPole ("batch sampling really did make a difference").
    """
    model, target, worth = mlp(5, 48, 2), mlp(5, 48, 2), _values()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    lab.recorder.watch(model, optimizer)
    generator, memory, cell = torch.Generator().manual_seed(0), [], 0
    for number in range(-64, 240):
        greedy = model(_seen(torch.tensor([cell]))).argmax(1).item()
        random = torch.rand(1, generator=generator).item() < 0.5
        move = int(torch.randint(2, (1,), generator=generator)) if random else int(greedy)
        after = max(0, cell + 2 * move - 1)
        memory.append((cell, move, after))
        cell = after if after < _CELLS - 1 else int(torch.randint(_CELLS - 1, (1,), generator=generator))
        if number < 0:
            continue
        if number % 15 == 0:
            target.load_state_dict(model.state_dict())
        recalled = torch.randint(len(memory), (64,), generator=generator).tolist() if lab.fixed else [-1]
        cells, moves, following = torch.tensor([memory[i] for i in recalled]).unbind(1)
        ended = following == _CELLS - 1
        with lab.recorder.step("train"):
            said = model(_seen(cells)).gather(1, moves[:, None])[:, 0]  # bug: learns_from_the_latest_move_only
            with torch.no_grad():
                aim = torch.where(ended, 1.0, 0.8 * target(_seen(following)).amax(1))
            descend(F.smooth_l1_loss(said, aim), optimizer)
        lab.validate(lambda _: (torch.arange(_CELLS - 1),), lambda c: F.mse_loss(model(_seen(c)), worth[c]), number)


_MOVES, _LENGTH = 6, 40


def _situations(number: int, episodes: int = 12) -> _Batch:
    """Signals that call for one of six moves each ``(12, 40, 6)``, with the time as a seventh, and the right moves."""
    generator = torch.Generator().manual_seed(number)
    right = torch.randint(_MOVES, (episodes, _LENGTH), generator=generator)
    signal = F.one_hot(right, _MOVES) + 0.1 * torch.randn(episodes, _LENGTH, _MOVES, generator=generator)
    time = (torch.arange(_LENGTH) / _LENGTH - 0.5).expand(episodes, _LENGTH)
    return torch.cat([signal, time[:, :, None]], dim=2), right


@broken(words=("baseline", "over time", "per time step", "own mean", "within an episode"), nodes=("loss", "target"))
def late_moves_are_always_blamed(lab: Lab) -> None:
    """The baseline is the mean of an episode's own returns, which fall with time: its later moves are always blamed.

    Source: alessiodm/drl-zh 5, possible errors in policy gradients (baseline, normalisation over the time steps).
    """
    policy = mlp(_MOVES + 1, 32, _MOVES)
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    lab.recorder.watch(policy, optimizer)

    def missed(signal: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return 1 - policy(signal).softmax(2).gather(2, right[:, :, None]).mean()

    for number in range(150):
        signal, right = _situations(number)
        with lab.recorder.step("train"):
            chances = torch.distributions.Categorical(logits=policy(signal))
            moves = chances.sample()
            returns = (moves == right).float().flip(1).cumsum(1).flip(1)
            axis = 0 if lab.fixed else 1
            advantage = returns - returns.mean(axis, keepdim=True)
            advantage = advantage / (returns.std(axis, keepdim=True) + 1e-6)
            loss = -(advantage * chances.log_prob(moves)).mean()  # bug: late_moves_are_always_blamed
            descend(loss, optimizer)
        lab.validate(lambda n: _situations(9000 + n, 64), missed, number)


class _Planner(nn.Module):
    """Scores each plot of a district by what it is and where it lies, next to the mean of all."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed, self.context = nn.Linear(5, width), nn.Linear(width, width)
        self.score = mlp(2 * width, width, 1, activation=nn.Tanh)

    def forward(self, plots: torch.Tensor) -> torch.Tensor:
        known = torch.tanh(self.embed(plots))
        around = torch.tanh(self.context(known.mean(1, keepdim=True))).expand_as(known)
        return self.score(torch.cat([known, around], dim=2))[:, :, 0]


def _districts(number: int, *, moved: bool) -> _Batch:
    """Ten plots ``(48, 10, 5)``: where in the country (km), and three facts; and which plot the plan takes."""
    generator = torch.Generator().manual_seed(number)
    place = 2 * torch.rand(48, 10, 2, generator=generator) - 1
    facts = torch.randn(48, 10, 3, generator=generator)
    best = (facts[:, :, 0] - 3 * place.square().sum(2)).argmax(1)
    corner = torch.tensor([448.0, 4418.0])
    return torch.cat([place if moved else place + corner, facts], dim=2), best


@broken(
    rules=("input-scale", "extreme-features"),
    words=("the origin", "offset", "standardis", "far from zero"),
    nodes=("input", "model.embed"),
)
def plots_far_from_the_origin(lab: Lab) -> None:
    """The plots of a district keep their coordinates in the country, thousands of kilometres, which saturate the net.

    Source: tsinghua-fib-lab/DRL-urban-planning 14, vanishing gradient, geometry was not moved to start from (0, 0).
    """
    model = _Planner()

    def loss_of(plots: torch.Tensor, best: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(plots), best)

    def batches(number: int) -> _Batch:
        return _districts(number, moved=lab.fixed)  # set-up bug: plots_far_from_the_origin

    after = lab.validating(model, lambda number: batches(9000 + number), loss_of)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    replace(lab, steps=180).fit(model, batches, loss_of, optimizer, after=after)
