"""States behind padding, weights lent as copies, values that left torch, and what several inputs or parts share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from stepscope.analysis.moving import is_of_policy
from stepscope.analysis.view import View
from stepscope.recorder import Every, Recorder
from stepscope.store import Trial, open_trial
from support.short_runs import Batch, curve_batches, findings, mlp, record


def levels(trial: Trial, rule: str) -> list[str]:
    return [finding.level for finding in findings(trial, rule)]


class Reader(nn.Module):
    """A recurrent layer over words or over vectors, of which one state for each sequence is used."""

    def __init__(self, how: str, *, words: bool = True) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8, padding_idx=0) if words else nn.Linear(3, 8, bias=False)
        layer = nn.LSTM if how == "lstm" else nn.GRU
        self.rnn, self.out, self.how = layer(8, 16, batch_first=True), nn.Linear(16, 3), how

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        given = self.embed(x)
        if self.how == "packed":
            packed = pack_padded_sequence(given, lengths, batch_first=True, enforce_sorted=False)
            return self.out(self.rnn(packed)[1][0])
        states, last = self.rnn(given)
        if self.how == "last column":
            return self.out(states[:, -1])
        if self.how == "own column":
            return self.out(states[torch.arange(len(x)), lengths - 1])
        if self.how == "mean":
            return self.out(states.mean(1))
        return self.out(last[0][0] if self.how == "lstm" else last[0])


def sentences(number: int, *, shortest: int = 3, words: bool = True) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sequences of up to 14 words (or vectors) ``(24, 14)``, padded to the longest, their lengths, and a class each."""
    generator = torch.Generator().manual_seed(number)
    lengths = torch.randint(shortest, 15, (24,), generator=generator)
    lengths[0] = 14
    tokens = torch.randint(1, 20, (24, 14), generator=generator)
    label = tokens[torch.arange(24), lengths - 1] % 3
    tokens[torch.arange(14) >= lengths[:, None]] = 0
    x = tokens if words else torch.stack([tokens, tokens % 3, tokens % 5], dim=2).float() / 5
    return x, lengths, label


@pytest.mark.parametrize(
    ("how", "shortest", "words", "found"),
    [
        ("last state", 3, True, ["warning"]),
        ("last column", 3, True, ["warning"]),
        ("lstm", 3, True, ["warning"]),
        ("last column", 3, False, ["warning"]),
        ("last state", 9, True, ["info"]),
        ("last state", 14, True, []),
        ("own column", 3, True, []),
        ("own column", 3, False, []),
        ("packed", 3, True, []),
        ("mean", 3, True, []),
    ],
)
def test_a_state_that_has_read_padding(how: str, shortest: int, words: bool, found: list[str], tmp_path: Path) -> None:
    model = Reader(how, words=words)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with Recorder(tmp_path, trial="t", schedule=Every(2), strict=True) as recorder:
        recorder.watch(model, optimizer)
        for number in range(40):
            x, lengths, label = sentences(number, shortest=shortest, words=words)
            with recorder.step():
                optimizer.zero_grad()
                F.cross_entropy(model(x, lengths), label).backward()
                optimizer.step()
    trial = open_trial(tmp_path / "t")
    assert levels(trial, "state-behind-padding") == found
    for finding in findings(trial, "state-behind-padding"):
        assert finding.node == "model.rnn" and finding.nodes == ("input.x",)


@pytest.mark.parametrize("copies", [True, False])
def test_gradients_given_to_copies_of_the_weights(copies: bool, tmp_path: Path) -> None:
    model = mlp(4, 16, 1)
    weights = [weight.detach().clone() for weight in model.parameters()] if copies else list(model.parameters())
    optimizer = torch.optim.SGD(weights, 0.05)
    with Recorder(tmp_path, trial="t", schedule=Every(2), strict=True) as recorder:
        recorder.watch(model, optimizer)
        for number in range(40):
            x, y = curve_batches(number)
            with recorder.step():
                loss = F.mse_loss(model(x[:, :4]), y[:, :1])
                for weight, gradient in zip(weights, torch.autograd.grad(loss, list(model.parameters())), strict=True):
                    weight.grad = gradient
                optimizer.step()
    told = findings(open_trial(tmp_path / "t"), "untrained-parameters")
    assert [(one.level, "holds none" in one.summary) for one in told] == [("error", True)] * copies


class Player(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.actor, self.critic = mlp(2, 16, 2), mlp(2, 16, 1)


def played(folder: Path, *, by_numpy: bool, rate: float = 1e-3) -> Trial:
    model = Player()
    optimizer = torch.optim.Adam(model.parameters(), rate)
    with Recorder(folder, trial="t", schedule=Every(2), strict=True) as recorder:
        recorder.watch(model, optimizer)
        for number in range(120):
            state = torch.randn(32, 2, generator=torch.Generator().manual_seed(number))
            with recorder.step():
                mean = model.actor(state)
                known = torch.tensor(mean.detach().numpy()) if by_numpy else mean
                policy = torch.distributions.MultivariateNormal(known, 0.1 * torch.eye(2))
                action = policy.sample()
                advantage = 1 - (action - state).square().sum(1) - model.critic(state)[:, 0]
                loss = advantage.square().mean() - (policy.log_prob(action) * advantage.detach()).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return open_trial(folder / "t")


@pytest.mark.parametrize("by_numpy", [True, False])
def test_a_policy_whose_means_left_torch(by_numpy: bool, tmp_path: Path) -> None:
    told = findings(played(tmp_path, by_numpy=by_numpy), "gradient-cut")
    assert [one.node for one in told] == ["model.actor"] * by_numpy
    assert all("outside of torch" in one.summary and one.source is not None for one in told)


def test_the_size_of_the_loss_of_a_policy_says_nothing(tmp_path: Path) -> None:
    assert levels(played(tmp_path, by_numpy=False, rate=1e-6), "loss-plateau") == []


class Embedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = mlp(8, 64, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.body(x), dim=1)


class Ranking(nn.Module):
    """A loss that calls the net: which of the others belongs to each."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = Embedding()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(12 * self.embedding(x) @ self.embedding(y).T, torch.arange(len(x)))


def test_embeddings_of_a_contrastive_loss_are_not_scores(tmp_path: Path) -> None:
    def data(number: int) -> Batch:
        x = torch.randn(32, 8, generator=torch.Generator().manual_seed(number))
        return x, x + 0.1 * torch.randn(32, 8)

    model = Ranking()
    trial = record(tmp_path, model, model, data, steps=80)
    assert levels(trial, "flat-scores") == levels(trial, "imbalanced-targets") == []


@pytest.mark.parametrize(("momentum", "found"), [(0.1, False), (0.0, True)])
def test_a_normalisation_that_several_inputs_share(momentum: float, found: bool, tmp_path: Path) -> None:
    """The running statistics of one with three inputs, of which one is far smaller, are those of all together."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.out = nn.BatchNorm1d(4, momentum=momentum), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(torch.stack([self.norm(size * x) for size in (0.8, 8.0, 8.0)]).sum(0))

    model = Shared()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with Recorder(tmp_path, trial="t", schedule=Every(1), strict=True) as recorder:
        recorder.watch(model, optimizer)
        for number in range(60):
            x = torch.randn(32, 4, generator=torch.Generator().manual_seed(number))
            model.train(number % 10 != 9)
            with recorder.step("train" if model.training else "validation"):
                loss = F.mse_loss(model(x), x.sum(1, keepdim=True))
                if model.training:
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
    told = [one for one in findings(open_trial(tmp_path / "t"), "batch-norm-mode") if one.level == "warning"]
    assert bool(told) == found


class Squeezed(nn.Module):
    def __init__(self, behind: int) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(6, 1), nn.Linear(1, behind), nn.Linear(behind, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(F.relu(self.second(F.relu(self.first(x)))))


@pytest.mark.parametrize(("behind", "found"), [(64, ["info"]), (6, [])])
def test_a_few_numbers_squeezed_to_one_before_many_units(behind: int, found: list[str], tmp_path: Path) -> None:
    def data(number: int) -> Batch:
        x = torch.randn(32, 6, generator=torch.Generator().manual_seed(number))
        return x, x.sum(1, keepdim=True)

    model = Squeezed(behind)
    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), data)
    assert levels(trial, "single-unit") == found


@pytest.mark.parametrize("drawn", [True, False])
def test_a_loss_of_what_was_drawn_is_that_of_a_policy(drawn: bool, tmp_path: Path) -> None:
    """Log-probabilities of several moments, stacked; against the same loss of actions that somebody else chose."""
    model = mlp(6, 16, 5)

    def loss_of(number: int, _: object) -> torch.Tensor:
        said, rewards = [], []
        for moment in range(3):
            state = torch.randn(32, 6, generator=torch.Generator().manual_seed(3 * number + moment))
            policy = torch.distributions.Categorical(logits=model(state))
            action = policy.sample() if drawn else torch.randint(5, (32,))
            said.append(policy.log_prob(action))
            rewards.append((action == state[:, :5].argmax(1)).float())
        advantage = torch.stack(rewards)
        return -(torch.stack(said) * (advantage - advantage.mean())).mean()

    trial = record(tmp_path, model, loss_of, steps=60, lr=1e-6)
    assert is_of_policy(View(trial)) == drawn


class Bag(nn.Module):
    """A net for each word, and one number for all words together, with a mask or without."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.embed, self.how = nn.Embedding(20, 8), how
        self.mix = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True) if "attention" in how else mlp(8, 16, 8)
        self.out = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        read, there = self.embed(x), (x > 0)[:, :, None].float()
        if "attention" in self.how:
            mixed = self.mix(read, src_key_padding_mask=x == 0 if self.how == "masked attention" else None)
            return self.out(mixed[:, 0])
        told = self.mix(read)
        if self.how == "maximum":
            return self.out(told.amax(1))
        return self.out(told.mean(1) if self.how == "mean" else (told * there).sum(1) / there.sum(1))


@pytest.mark.parametrize(
    ("how", "shortest", "told"),
    [
        ("mean", 3, True), ("masked mean", 3, False), ("mean", 14, False), ("maximum", 3, False),
        ("attention", 3, True), ("masked attention", 3, False),
    ],
)  # fmt: skip
def test_padding_that_counts(how: str, shortest: int, told: bool, tmp_path: Path) -> None:
    model = Bag(how)

    def data(number: int) -> Batch:
        x, _, label = sentences(number, shortest=shortest)
        return x, label

    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), data)
    found = findings(trial, "unmasked-padding")
    assert [one.node for one in found] == ["model.embed"] * told
    assert all("0 behind the end" in one.summary for one in found)


def test_what_a_rule_says_of_two_losses_is_said_once(tmp_path: Path) -> None:
    model = mlp(6, 16, 1)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        predicted = model(x)
        return F.mse_loss(predicted, y) + 0.1 * F.l1_loss(predicted, y)

    def data(number: int) -> Batch:
        x = torch.randn(64, 6, generator=torch.Generator().manual_seed(number))
        return x, (x[:, :1] > 0).float() + (x[:, 1:2] > 0).float()

    told = [(one.rule, one.node, one.summary) for one in findings(record(tmp_path, model, loss_of, data))]
    assert len(told) == len(set(told))


@pytest.mark.parametrize("numbered", [True, False])
def test_targets_are_numbered_anew_in_each_kind_of_step(numbered: bool, tmp_path: Path) -> None:
    """The second target of a validation may be another thing than that of a training; and the first one is not."""
    model = mlp(6, 16, 1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    with Recorder(tmp_path, trial="t", schedule=Every(1), strict=True) as recorder:
        recorder.watch(model, optimizer)
        for number in range(24):
            x = torch.randn(32, 6, generator=torch.Generator().manual_seed(number))
            y = torch.randn(32, 2, generator=torch.Generator().manual_seed(99 + number))
            validates = number % 4 == 3
            with recorder.step("validation" if validates else "train"):
                out, scale = model(x), 30.0 if validates else 1.0
                if numbered:
                    loss = (out - y[:, :1].sin()).square().mean()
                    loss = loss + (out - (scale + y[:, 1:] if validates else scale * y[:, 1:])).abs().mean()
                else:
                    loss = F.mse_loss(out, scale * torch.as_tensor(x[:, :1].numpy().copy()))
                if not validates:
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
    found = [one for one in findings(open_trial(tmp_path / "t"), "evaluation-data") if one.node.startswith("target")]
    assert bool(found) == (not numbered)
