"""Copies that part, rare classes, words turned round, single samples, and contests in which nobody moves."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.analysis import Finding
from stepscope.recorder import Every, Recorder
from stepscope.store import Trial, open_trial
from support.short_runs import Batch, blob_batches, curve_batches, findings, mlp, record


def levels(trial: Trial, rule: str) -> list[str]:
    return [finding.level for finding in findings(trial, rule)]


class Pair(nn.Module):
    """Two copies of a net: beside each other, each with its half of the batch, or one behind the other."""

    def __init__(self, how: str) -> None:
        super().__init__()
        first = mlp(6, 16, 6)
        self.parts = nn.ModuleList([first, mlp(6, 16, 6) if how == "own weights" else copy.deepcopy(first)])
        if how == "a follower":
            self.parts[1].requires_grad_(requires_grad=False)
        self.how, self.out = how, nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "a chain":
            return self.out(self.parts[1](self.parts[0](x)))
        half = len(x) // 2
        return self.out(torch.cat([self.parts[0](x[:half]), self.parts[1](x[half:])]))


@pytest.mark.parametrize(
    ("how", "found"),
    [("replicas", ["info"]), ("averaged", []), ("own weights", []), ("a chain", []), ("a follower", [])],
)
def test_copies_beside_each_other_that_part(how: str, found: list[str], tmp_path: Path) -> None:
    model = Pair(how)

    def train(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        loss.backward()
        if how == "averaged":
            for one, two in zip(model.parts[0].parameters(), model.parts[1].parameters(), strict=True):
                one.grad = two.grad = (one.grad + two.grad) / 2  # type: ignore[operator]
        optimizer.step()

    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), curve_batches, train=train)
    assert levels(trial, "parted-copies") == found
    for finding in findings(trial, "parted-copies"):
        assert {finding.node, finding.nodes[0]} == {"model.parts.0", "model.parts.1"}
        assert finding.step == 1


@pytest.mark.parametrize(("rate", "found"), [(1e-6, ["warning"]), (2e-3, [])])
def test_a_contest_in_which_nobody_moves(rate: float, found: list[str], tmp_path: Path) -> None:
    maker, judge = mlp(4, 32, 32, 2), mlp(2, 32, 32, 1)
    makes, judges = (torch.optim.Adam(net.parameters(), rate) for net in (maker, judge))
    with Recorder(tmp_path, trial="t", schedule=Every(2), strict=True) as recorder:
        recorder.watch({"maker": maker, "judge": judge}, {"makes": makes, "judges": judges})
        for _ in range(120):
            with recorder.step():
                made, real = maker(torch.randn(64, 4)), 0.3 * torch.randn(64, 2) + 2
                judges.zero_grad()
                (F.softplus(-judge(real)).mean() + F.softplus(judge(made.detach())).mean()).backward()
                judges.step()
                makes.zero_grad()
                F.softplus(-judge(made)).mean().backward()
                makes.step()
    told = [one for one in findings(open_trial(tmp_path / "t"), "learning-rate") if "too low" in one.summary]
    assert [one.level for one in told] == found


@pytest.mark.parametrize(
    ("shares", "found"),
    [
        ((0.3, 0.3, 0.395, 0.005), True),
        ((0.25, 0.25, 0.25, 0.25), False),
        ((0.5, 0.25, 0.12, 0.07, 0.04, 0.02), False),  # a tail, in which each is as common as the next but one
    ],
)
def test_classes_that_are_far_rarer_than_all_others(shares: tuple[float, ...], found: bool, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Embedding(8, 16), nn.Linear(16, len(shares)))

    def data(number: int) -> Batch:
        generator = torch.Generator().manual_seed(number)
        chosen = torch.multinomial(torch.tensor(shares), 32 * 6, replacement=True, generator=generator).view(32, 6)
        return torch.where(torch.rand(32, 6, generator=generator) < 0.1, 7, chosen), chosen

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x).transpose(1, 2), y)

    trial = record(tmp_path, model, loss_of, data, steps=120)
    rare = [one for one in findings(trial, "imbalanced-targets") if "rare" in one.summary]
    assert [one.level for one in rare] == ["info"] * found
    assert all(", 3 is rare" in one.summary for one in rare)


@pytest.mark.parametrize("turned", [True, False])
def test_words_turned_round_are_not_the_words(turned: bool, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Embedding(8, 16), nn.Linear(16, 8))

    def data(number: int) -> Batch:
        words = torch.randint(8, (32, 6), generator=torch.Generator().manual_seed(number))
        return words, words.flip(1) if turned else words.clone()

    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x).transpose(1, 2), y), data)
    assert levels(trial, "targets-equal-inputs") == ([] if turned else ["warning"])


@pytest.mark.parametrize(("size", "found"), [(1, ["info"]), (32, [])])
def test_single_pieces_of_text(size: int, found: list[str], tmp_path: Path) -> None:
    model = nn.Sequential(nn.Embedding(30, 16), nn.Linear(16, 30))
    follows = torch.randint(30, (30, 3), generator=torch.Generator().manual_seed(1))

    def data(number: int) -> Batch:
        generator = torch.Generator().manual_seed(number)
        words = torch.randint(30, (size, 8), generator=generator)
        return words, follows[words, torch.randint(3, (size, 8), generator=generator)]

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x).transpose(1, 2), y)

    trial = record(tmp_path, model, loss_of, data, steps=100, optimizer=torch.optim.Adam(model.parameters(), 5e-3))
    assert levels(trial, "tiny-batch") == found


class _Pointer(nn.Module):
    """Attention whose scores grow, of which nothing depends, beside a net that learns or does not."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.calls = mlp(8, 32, 4), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        keys = x[:, :, None].expand(-1, -1, 4)
        self.calls += 1
        seen = F.scaled_dot_product_attention(keys, keys, keys, scale=0.2 + self.calls * self.factor)
        return self.net(x) + 0 * seen.mean(2)[:, :4]

    factor = 1.0


@pytest.mark.parametrize(("rate", "expected"), [(1e-2, "info"), (1e-7, "warning")])
def test_scores_that_grow_while_the_loss_falls(rate: float, expected: str, tmp_path: Path) -> None:
    model = _Pointer()
    with torch.no_grad():
        largest = max(float((x[:, :, None] * x[:, None]).max()) * 4 for x, _ in map(blob_batches, range(40)))
    model.factor = 8.0 / largest  # about 200 at the end, of those that are looked at
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, steps=50, lr=rate)
    found: list[Finding] = findings(trial, "attention-logits")
    assert [one.level for one in found] == [expected]


class _Residual(nn.Module):
    """Convolutions with ways around them."""

    def __init__(self, between: str, count: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, 8, 1)
        self.layers = nn.ModuleList(nn.Conv1d(8, 8, 3) for _ in range(count))
        self.norms = nn.ModuleList(nn.GroupNorm(2, 8) for _ in range(count))
        self.between, self.out = between, nn.Linear(64, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x[:, None])
        for layer, norm in zip(self.layers, self.norms, strict=True):
            hidden = layer(F.pad(norm(x) if self.between == "a norm" else x, (1, 1)))
            x = x + (hidden.relu() if self.between == "a relu" else hidden)
        return self.out(x.flatten(1))


@pytest.mark.parametrize(
    ("between", "count", "found"), [("nothing", 4, 1), ("nothing", 2, 0), ("a relu", 4, 0), ("a norm", 4, 0)]
)
def test_convolutions_with_ways_around_them(between: str, count: int, found: int, tmp_path: Path) -> None:
    model = _Residual(between, count)
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches)
    told = [one for one in findings(trial, "missing-nonlinearity") if "the sum of what" in one.summary]
    assert len(told) == found
    for one in told:
        assert (
            one.level == "warning"
            and one.node == "model.layers.1"
            and one.nodes[:2] == ("model.layers.2", "model.layers.3")
        )
        assert one.source is not None and "layer(" in one.source.text
