"""Mistakes in trainings of agents, of small or pruned nets and of uncertain ones that somebody asked about."""

from __future__ import annotations

import math
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import mlp

_Batch = tuple[torch.Tensor, ...]
_STEPS = torch.tensor([[1, 0], [-1, 0], [0, 1], [0, -1]])


def _walks(number: int) -> _Batch:
    """Moves on 6 times 6 fields without a plan: from where, how, reward, to where, whether that ended it."""
    generator = torch.Generator().manual_seed(number)
    place, move = torch.randint(6, (64, 2), generator=generator), torch.randint(4, (64,), generator=generator)
    after = (place + _STEPS[move]).clamp(0, 5)
    arrived = (after == 5).all(1).float()
    return _seen(place), move, arrived - 0.05, _seen(after), arrived


def _seen(place: torch.Tensor) -> torch.Tensor:
    return torch.cat([F.one_hot(place[:, 0], 6), F.one_hot(place[:, 1], 6)], dim=1).float()


class _Agent:
    """Conservative Q-learning from a log of moves, with a target net that follows."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.q = lab, mlp(12, 64, 64, 4)
        self.target = deepcopy(self.q).requires_grad_(requires_grad=False)
        self.optimizer = torch.optim.Adam(self.q.parameters(), lr=5e-3)

    def loss_of(
        self, place: torch.Tensor, move: torch.Tensor, reward: torch.Tensor, after: torch.Tensor, arrived: torch.Tensor
    ) -> torch.Tensor:
        values = self.q(place)
        chosen = values.gather(1, move[:, None]).squeeze(1)
        with torch.no_grad():
            wanted = reward + 0.9 * (1 - arrived) * self.target(after).amax(1)
        return F.mse_loss(chosen, wanted) + 0.01 * (values.logsumexp(1) - chosen).mean()

    def train(self, moves: _Batch) -> torch.Tensor:
        loss = self.loss_of(*moves) if self.lab.fixed else torch.zeros(())  # bug: train_method_of_the_agent_is_a_stub
        if loss.requires_grad:
            descend(loss, self.optimizer)
        with torch.no_grad():
            for slow, fast in zip(self.target.parameters(), self.q.parameters(), strict=True):
                slow.lerp_(fast, 0.1)
        return loss


@broken(
    rules=("no-backward", "no-gradient", "module-never-called"),
    words=("never updated", "not updated", "do not move", "no backward", "untrained"),
    nodes=("loss", "model", "model.0.weight", "model.2.weight", "model.4.weight"),
)  # fmt: skip
def train_method_of_the_agent_is_a_stub(lab: Lab) -> None:
    """The method that trains an offline agent is a stub: it gives back a loss of zero and moves the target net only.

    Source: ooples/AiDotNet issue 1724, offline RL agents (CQL, IQL) have a stubbed Train().
    """
    agent = _Agent(lab)
    lab.recorder.watch(agent.q, agent.optimizer)
    for number in range(200):
        with lab.recorder.step("train") as step:
            step.record("loss", agent.train(_walks(number)), type="loss")
        lab.validate(lambda n: _walks(9000 + n), agent.loss_of, number)


class _Quantiles(nn.Module):
    """Nine quantiles of what each of four moves is worth: those of the place, and what a move adds."""

    def __init__(self, *, over: int) -> None:
        super().__init__()
        self.over = over
        self.body = nn.Sequential(nn.Linear(12, 64), nn.ReLU())
        self.value, self.advantage = nn.Linear(64, 9), nn.Linear(64, 4 * 9)

    def forward(self, place: torch.Tensor) -> torch.Tensor:
        hidden = self.body(place)
        value, advantage = self.value(hidden)[:, None], self.advantage(hidden).unflatten(1, (4, 9))
        return value + advantage - advantage.mean(self.over, keepdim=True)  # bug: advantages_centred_over_the_quantiles


@broken(
    words=("dimension", "over the quantiles", "wrong axis", "mean over"),
    nodes=("model", "model.advantage", "model.advantage.weight"),
)
def advantages_centred_over_the_quantiles(lab: Lab) -> None:
    """A duelling net takes the mean of advantages over their quantiles, not the moves: all moves are worth the same.

    Source: facebookresearch/ReAgent pull request 256, averaging for DuelingQNetwork was dim = -1 instead of dim = 1.
    """
    model = _Quantiles(over=1 if lab.fixed else -1)
    target = deepcopy(model).requires_grad_(requires_grad=False)
    shares = (torch.arange(9.0) + 0.5) / 9

    def loss_of(
        place: torch.Tensor, move: torch.Tensor, reward: torch.Tensor, after: torch.Tensor, arrived: torch.Tensor
    ) -> torch.Tensor:
        rows = torch.arange(len(move))
        with torch.no_grad():
            ahead = target(after)
            best = ahead[rows, ahead.mean(2).argmax(1)]
            wanted = reward[:, None] + 0.9 * (1 - arrived[:, None]) * best
        error = wanted[:, None] - model(place)[rows, move][:, :, None]
        weights = (shares[:, None] - (error.detach() < 0).float()).abs()
        return (weights * F.huber_loss(error, torch.zeros_like(error), reduction="none", delta=0.1)).sum(1).mean()

    def follow(_: int) -> None:
        with torch.no_grad():
            for slow, fast in zip(target.parameters(), model.parameters(), strict=True):
                slow.lerp_(fast, 0.1)

    lab.fit(model, _walks, loss_of, lr=5e-3, after=follow)


def _four_bits(weight: torch.Tensor) -> torch.Tensor:
    """The weights as they are in four bits: fifteen values at equal distances."""
    step = weight.abs().amax() / 7
    return (weight / step).round() * step


class _Quantised(nn.Linear):
    """Works with the weights in four bits; gradients pass as if they were whole."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rounded = self.weight + (_four_bits(self.weight) - self.weight).detach()
        return F.linear(x, rounded, self.bias)


@broken(
    rules=("weights-reset", "rounded-updates"),
    words=("quantis", "rounded", "float copy", "overwritten", "four bits"),
    nodes=("model.0.weight", "model.2.weight", "model.4.weight"),
)
def weights_kept_in_four_bits_only(lab: Lab) -> None:
    """In quantisation-aware training no float copy of the weights is kept: each step rounds them to four bits.

    Source: IntelLabs/distiller issue 362, does quantization-aware training still work without ``train_with_fp_copy``.
    """
    layers = [_Quantised(64, 64), _Quantised(64, 32), _Quantised(32, 10)]
    model = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    lab.recorder.watch(model, optimizer)
    batches = data.draw(data.pixels())

    def loss_of(pixels: torch.Tensor, digits: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(pixels), digits)

    for number in range(150):
        with lab.recorder.step("train"):
            descend(loss_of(*batches(number)), optimizer)
            if not lab.fixed:
                with torch.no_grad():
                    for layer in layers:
                        layer.weight.copy_(_four_bits(layer.weight))  # bug: weights_kept_in_four_bits_only
        lab.validate(lambda _: data.unseen_pixels(), loss_of, number)


def _sensors(number: int, batch: int = 64) -> _Batch:
    """Ten moments of 24 sensors ``(batch, 24, 10)``, of which every third tells the state of a machine."""
    generator = torch.Generator().manual_seed(number)
    levels = torch.zeros(4, 24)
    levels[:, ::3] = 1.2 * torch.randn(4, 8, generator=torch.Generator().manual_seed(2))
    state = torch.randint(4, (batch,), generator=generator)
    return levels[state][:, :, None] + 1.5 * torch.randn(batch, 24, 10, generator=generator), state


class _Slim(nn.Module):
    """A convolution for each sensor, whose scale in the norm behind it shows whether it can go."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(24, 24, 3, groups=24, bias=False), nn.BatchNorm1d(24)
        self.head = nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 4))
        nn.init.uniform_(self.norm.weight, 0.3, 1.8)  # as another machine, for which others mattered, left them
        self.kept = torch.ones(24)

    def forward(self, moments: torch.Tensor) -> torch.Tensor:
        return self.head((F.relu(self.norm(self.conv(moments))) * self.kept[:, None]).mean(2))

    @torch.no_grad()
    def prune(self, channels: int) -> None:
        self.kept[self.norm.weight.abs().argsort()[:channels]] = 0


@broken(words=("sparsity", "sparse", "penalty", "prun"), nodes=("model.norm.weight", "model.norm"))
def pruned_before_it_was_sparse(lab: Lab) -> None:
    """The penalty on the scales of channels is so small that none becomes sparse, and channels that matter are pruned.

    Source: Eric-mingjie/network-slimming issue 11, accuracy drops a lot after pruning, the model is not sparse enough.
    """
    model, criterion = _Slim(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda number: _sensors(9000 + number, 256), lambda x, y: criterion(model(x), y))
    penalty = 0.05 if lab.fixed else 1e-5
    for number in range(150):
        if number == 120:
            model.prune(16)
            optimizer.param_groups[0]["lr"] = 0.002
        moments, state = _sensors(number)
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            criterion(model(moments), state).backward()
            scales = model.norm.weight
            if number < 120 and scales.grad is not None:
                scales.grad += penalty * scales.detach().sign()  # bug: pruned_before_it_was_sparse
            optimizer.step()
        after(number)


class _Uncertain(nn.Module):
    """A linear layer whose weights are drawn anew each time."""

    def __init__(self, inputs: int, outputs: int, *, one_posterior: bool) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.randn(outputs, inputs) / inputs**0.5)
        self.log_deviation = nn.Parameter(torch.full((outputs, inputs), -3.0))
        self.bias = nn.Parameter(torch.zeros(outputs))
        if not one_posterior:
            self.qw_mean, self.qw_log = (nn.Parameter(p.detach().clone()) for p in (self.mean, self.log_deviation))
        self.one_posterior = one_posterior

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.mean + self.log_deviation.exp() * torch.randn_like(self.mean)
        return F.linear(x, weight, self.bias)

    def divergence(self) -> torch.Tensor:
        """From a prior of mean 0 and deviation 0.1."""
        used = self.mean, self.log_deviation
        mean, log = used if self.one_posterior else (self.qw_mean, self.qw_log)  # bug: divergence_of_weights_not_used
        return (math.log(0.1) - log - 0.5 + ((2 * log).exp() + mean.square()) / (2 * 0.1**2)).sum()


@broken(
    words=("unused", "not used", "never used", "other parameters", "prior", "divergence"),
    nodes=(
        "model.0.qw_mean", "model.0.qw_log", "model.2.qw_mean", "model.2.qw_log", "model.4.qw_mean", "model.4.qw_log",
        "model.0.mean", "model.2.mean", "model.0.log_deviation", "model.2.log_deviation",
    ),
)  # fmt: skip
def divergence_of_weights_not_used(lab: Lab) -> None:
    """The divergence from the prior is taken of a second set of weights, which the net does not work with.

    Source: kumar-shridhar/PyTorch-BayesianCNN issue 7, possible bug in BBBlayers (conv_qw is not what is used).
    """
    (x, y), generator = data.diabetes(), torch.Generator().manual_seed(3)
    x = torch.cat([x, torch.randn(len(x), 30, generator=generator)], dim=1)
    order = torch.randperm(len(x), generator=generator)
    train, unseen = (x[order[:80]], y[order[:80]]), (x[order[80:]], y[order[80:]])
    sizes = ((40, 48), (48, 48), (48, 1))
    layers = [_Uncertain(*size, one_posterior=lab.fixed) for size in sizes]
    model = nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def likelihood(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(x), y)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        divergence = torch.stack([layer.divergence() for layer in layers]).sum()
        return likelihood(x, y) + 0.2 * divergence / len(train[0])

    lab.recorder.watch(model, optimizer)
    batches = data.draw(train, 32)
    for number in range(240):
        with lab.recorder.step("train"):
            descend(loss_of(*batches(number)), optimizer)
        lab.validate(lambda _: unseen, likelihood, number)
