"""Data that do not belong together, and parts of a training that are not there: what a set from courses had taught."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Every, Recorder
from stepscope.store import Trial, open_trial
from support.short_runs import Batch, blob_batches, blobs, curve, descend, findings, mlp, record

_EPOCH = 12


def _shuffled(folder: Path, how: str) -> Trial:
    """Three epochs over the same points: ``how`` the inputs of the later ones come."""
    torch.manual_seed(0)
    model = mlp(8, 16, 4)
    points, labels = blobs(samples=32 * _EPOCH)

    def data(number: int) -> Batch:
        generator = torch.Generator().manual_seed(number // _EPOCH)
        order, rows = torch.randperm(len(points), generator=generator), slice(32 * (number % _EPOCH), None)
        mine = order[rows][:32]
        kept = torch.arange(len(points))[rows][:32]
        if how == "both":
            return points[mine], labels[mine]
        if how == "augmented":
            return points[kept] + 0.1 * torch.randn(32, 8), labels[kept]
        return points[mine if number >= _EPOCH else kept], labels[kept]

    return record(folder, model, lambda x, y: F.cross_entropy(model(x), y), data, steps=3 * _EPOCH)


@pytest.mark.parametrize(("how", "told"), [("inputs", True), ("both", False), ("augmented", False)])
def test_inputs_that_are_shuffled_without_their_targets(how: str, told: bool, tmp_path: Path) -> None:
    found = findings(_shuffled(tmp_path, how), "recurring-targets")
    assert [(one.node, one.nodes, "every 12 steps" in one.summary) for one in found] == [
        ("target", ("input",), True)
    ] * told


@pytest.mark.parametrize(("learns", "told"), [("never", True), ("by hand", False), ("by backward", False)])
def test_a_training_that_never_calls_backward(learns: str, told: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(8, 16, 4)

    def train(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        if learns == "by backward":
            descend(loss, optimizer)
        elif learns == "by hand":  # as evolution strategies do
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.01 * torch.randn_like(parameter))

    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, train=train, steps=24)
    assert ["none of 24 steps" in one.summary for one in findings(trial, "no-backward")] == [True] * told


class _Uncertain(nn.Module):
    """A layer with weights, and a copy of them."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.copy = (nn.Parameter(torch.randn(4, 8) / 3) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.mean)


@pytest.mark.parametrize(("penalised", "told"), [("copy", True), ("mean", False), ("both", False)])
def test_a_penalty_of_weights_that_are_not_used(penalised: str, told: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = _Uncertain()

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        names = ("copy", "mean") if penalised == "both" else (penalised,)
        penalty = torch.stack([getattr(model, name).square().mean() for name in names]).sum()
        return F.cross_entropy(model(x), y) + 0.1 * penalty

    found = findings(record(tmp_path, model, loss_of, blob_batches, steps=12), "penalised-copies")
    assert [(one.node, one.nodes) for one in found] == [("model.copy", ("model.mean", "loss"))] * told


@pytest.mark.parametrize(("scale", "told"), [(50.0, True), (1.0, False)])
def test_forecasts_that_are_compared_with_what_is_not_scaled(scale: float, told: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(6, 16, 2)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch(model, optimizer)
        for number in range(16):
            x, y = curve(seed=number)
            with recorder.step("train"):
                descend(F.mse_loss(model(x), y), optimizer)
            if number % 4 == 3:
                x, y = curve(seed=100 + number)
                with recorder.step("validation"), torch.no_grad():
                    F.mse_loss(model(x), scale * (y + 5) - 5)
    found = findings(open_trial(tmp_path / "trial"), "evaluation-data")
    assert [one.node for one in found] == (["target"] if told else [])


@pytest.mark.parametrize(("noise", "told"), [(0.0, True), (0.3, False)])
def test_pairs_that_are_no_pairs(noise: float, told: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(8, 16, 8)

    def data(number: int) -> Batch:
        clean, _ = blobs(seed=number)
        return clean + noise * torch.randn_like(clean), clean.clone()

    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), data, steps=12)
    assert [one.level for one in findings(trial, "targets-equal-inputs")] == ["info"] * told


class _Shop(nn.Module):
    """What goods are worth to customers."""

    def __init__(self) -> None:
        super().__init__()
        self.customer, self.good = nn.Embedding(20, 6), nn.Embedding(10, 6)

    def forward(self, customer: torch.Tensor, good: torch.Tensor) -> torch.Tensor:
        return (self.customer(customer) * self.good(good)).sum(1)


def _sales(number: int) -> Batch:
    generator = torch.Generator().manual_seed(number)
    customer = torch.randint(20, (64,), generator=generator)
    return customer, (customer + torch.randint(3, (64,), generator=generator)) % 10, (customer + 5) % 10


@pytest.mark.parametrize("penalty", [0.0, 1e-3])
@pytest.mark.parametrize(("sign", "told"), [(1, True), (-1, False)])
def test_preferences_whose_likelihood_is_minimised(sign: int, told: bool, penalty: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = _Shop()

    def loss_of(customer: torch.Tensor, bought: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        likelihood = F.logsigmoid(model(customer, bought) - model(customer, other)).mean()
        signed = likelihood if sign > 0 else -likelihood
        return signed + penalty * model.good.weight.square().mean() if penalty else signed

    found = findings(record(tmp_path, model, loss_of, _sales, steps=12), "likelihood-sign")
    assert [one.level for one in found] == ["warning"] * told


@pytest.mark.parametrize(("rate", "told"), [(300.0, True), (1.0, False)])
def test_tables_that_are_thrown_about(rate: float, told: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = _Shop()

    def loss_of(customer: torch.Tensor, bought: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return F.relu(1 - model(customer, bought) + model(customer, other)).mean()

    trial = record(tmp_path, model, loss_of, _sales, optimizer=torch.optim.SGD(model.parameters(), rate), steps=40)
    assert ["too high" in one.summary for one in findings(trial, "learning-rate")] == [True] * told
