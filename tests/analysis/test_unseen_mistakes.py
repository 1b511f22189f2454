"""What a set of unseen runs had taught: mistakes that were missed, and sound trainings that were accused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Every, Recorder
from stepscope.store import Trial, open_trial
from support.short_runs import Batch, blob_batches, blobs, curve, curve_batches, descend, findings, mlp, record


class _Factors(nn.Module):
    """Two tables without any bias."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(30, 4), nn.Embedding(20, 4)
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=0.3)

    def forward(self, pairs: torch.Tensor) -> torch.Tensor:
        return (self.users(pairs[:, 0]) * self.items(pairs[:, 1])).sum(1)


@pytest.mark.parametrize("cleared", [True, False])
def test_gradients_of_tables_that_are_never_cleared(cleared: bool, tmp_path: Path) -> None:
    def data(number: int) -> Batch:
        generator = torch.Generator().manual_seed(number)
        pairs = torch.stack([torch.randint(size, (64,), generator=generator) for size in (30, 20)], dim=1)
        return pairs, torch.sin(pairs.sum(1).float())

    def train(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        if cleared:
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    torch.manual_seed(0)
    model = _Factors()
    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), data, steps=60, every=2, train=train)
    assert [one.level for one in findings(trial, "accumulated-gradients")] == ([] if cleared else ["error"])


@pytest.mark.parametrize(("rate", "told"), [(1e-3, True), (0.3, False)])
def test_plain_descent_at_a_rate_of_adam(rate: float, told: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(8, 32, 32, 4)
    optimizer = torch.optim.SGD(model.parameters(), rate)
    trial = record(
        tmp_path,
        model,
        lambda x, y: F.cross_entropy(model(x), y),
        blob_batches,
        optimizer=optimizer,
        steps=120,
        every=4,
    )
    assert ["too low" in one.summary for one in findings(trial, "learning-rate")] == [True] * told


@pytest.mark.parametrize("last", ["log_softmax", "none"])
def test_a_log_softmax_before_a_cross_entropy_of_several_labels(last: str, tmp_path: Path) -> None:
    model = mlp(8, 16, 4, last=[nn.LogSoftmax(1)] if last == "log_softmax" else [])

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(model(x), (F.one_hot(y, 4) + F.one_hot((y + 1) % 4, 4)).float())

    found = findings(record(tmp_path, model, loss_of, blob_batches, steps=8), "activation-before-loss")
    assert [one.level for one in found] == (["error"] if last == "log_softmax" else [])


def _validated(folder: Path, model: nn.Module, validate: Callable[[torch.Tensor, torch.Tensor], None]) -> Trial:
    """Record a training that is validated after every fourth step."""
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with Recorder(folder, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch(model, optimizer)
        for number in range(24):
            points, labels = blobs(seed=number)
            with recorder.step("train"):
                descend(F.cross_entropy(model(points), labels), optimizer)
            if number % 4 == 3:
                with recorder.step("validation"), torch.no_grad():
                    validate(points, labels)
    return open_trial(folder / "trial")


@pytest.mark.parametrize("evaluates", [True, False])
def test_an_evaluation_in_several_calls(evaluates: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))

    def validate(points: torch.Tensor, labels: torch.Tensor) -> None:
        model.train(not evaluates)
        for label in range(4):
            model(points[labels == label])
        model.train()

    found = findings(_validated(tmp_path, model, validate), "batch-norm-mode")
    assert [one.level for one in found] == ([] if evaluates else ["warning"])


@pytest.mark.parametrize("missing", [999.9, None])
def test_targets_among_which_a_number_stands_for_a_missing_one(missing: float | None, tmp_path: Path) -> None:
    model = mlp(6, 16, 2)

    def data(number: int) -> Batch:
        x, y = curve_batches(number)
        if missing is not None and number % 3:
            y = y.index_fill(0, torch.tensor([number % 7]), missing)
        return x, y

    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), data, steps=60, every=2)
    found = findings(trial, "target-scale")
    assert ["sentinel" in one.summary for one in found] == ([] if missing is None else [True])


class _Adapted(nn.Module):
    """A frozen layer with two narrow ones beside it, wider than what it gives."""

    def __init__(self, *, beside: bool) -> None:
        super().__init__()
        self.base = nn.Linear(8, 4)
        self.down, self.up = nn.Linear(8, 6), nn.Linear(6, 4)
        self.beside = beside

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        added = self.up(self.down(x))
        return self.base(x) + added if self.beside else added


@pytest.mark.parametrize("beside", [True, False])
def test_adapters_are_no_missing_activation(beside: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = _Adapted(beside=beside)
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, steps=8)
    assert [one.level for one in findings(trial, "missing-nonlinearity")] == ([] if beside else ["warning"])


def test_what_is_right_in_the_same_place_of_each_sample_is_no_constant_data(tmp_path: Path) -> None:
    model = _Factors()

    def loss_of(right: torch.Tensor, wrong: torch.Tensor) -> torch.Tensor:
        scores = torch.stack([model(right), model(wrong)], dim=1)
        wanted = torch.cat([torch.ones(len(right), 1), torch.zeros(len(right), 1)], dim=1).float()
        return F.binary_cross_entropy_with_logits(scores, wanted)

    def data(number: int) -> Batch:
        generator = torch.Generator().manual_seed(number)
        pairs: Any = [torch.randint(20, (32, 2), generator=generator) for _ in range(2)]
        return tuple(pairs)

    trial = record(tmp_path, model, loss_of, data, steps=12)
    assert findings(trial, "constant-data") == []


def test_the_ratio_of_a_policy_to_itself_is_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(8, 16, 4)

    def loss_of(x: torch.Tensor, gains: torch.Tensor) -> torch.Tensor:
        said = model(x).log_softmax(1)[:, 0]
        return -((said - said.detach()).exp() * (gains.float() - 1.5)).mean()

    trial = record(tmp_path, model, loss_of, blob_batches, lr=1e-3, steps=24)
    assert findings(trial, "constant-output") == []


def test_what_holds_for_several_layers_is_said_once(tmp_path: Path) -> None:
    torch.manual_seed(0)
    norms = [layer for _ in range(5) for layer in (nn.Linear(16, 16), nn.BatchNorm1d(16), nn.ReLU())]
    model = nn.Sequential(nn.Linear(8, 16), *norms, nn.Linear(16, 4))
    trial = _validated(tmp_path, model, lambda points, labels: model(points))
    (finding,) = findings(trial, "batch-norm-mode")
    assert finding.node == "model.2" and finding.nodes == ("model.5", "model.8", "model.11", "model.14")
    assert finding.summary.endswith("The same holds for model.5, model.8, model.11 and 1 more.")


@pytest.mark.parametrize(("begins", "told"), [(0.0, True), (30.0, False)])
def test_targets_far_from_where_the_net_begins(begins: float, told: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(6, 32, 2)
    nn.init.constant_(model[-1].bias, begins)

    def data(number: int) -> Batch:
        x, y = curve_batches(number)
        return x, y + 30

    trial = record(tmp_path, model, lambda x, y: F.smooth_l1_loss(model(x), y), data, steps=100, every=4)
    found = findings(trial, "target-scale")
    assert ["mean of the targets" in one.summary for one in found] == [True] * told


@pytest.mark.parametrize(("bounded", "told"), [(True, 0), (False, 1)])
def test_a_label_that_never_occurs_is_pushed_away_for_ever(bounded: bool, told: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(8, 16, 4)

    def loss_of(points: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        scores = model(points)
        tags = F.one_hot(labels % 3, 4).float()
        if bounded:
            return F.multilabel_soft_margin_loss(scores, tags)
        return ((scores[:, :3] - tags[:, :3]) ** 2).mean() + scores[:, 3].mean()

    trial = record(tmp_path, model, loss_of, blob_batches, steps=120, every=4)
    assert len(findings(trial, "unbounded-loss")) == told


@pytest.mark.parametrize("compared", [True, False])
def test_a_state_of_an_environment_that_a_loss_is_made_with_is_no_leak(compared: bool, tmp_path: Path) -> None:
    """What a policy did is among what it sees; only a prediction that is held against it is told the answer."""
    torch.manual_seed(0)
    model = mlp(6, 16, 2)

    def data(number: int) -> Batch:
        state, _ = curve(seed=number)
        return state, state[:, 1:3].clone()

    def loss_of(state: torch.Tensor, done: torch.Tensor) -> torch.Tensor:
        said = model(state)
        return F.mse_loss(said, done) if compared else -(said.log_softmax(1)[:, :1] * done).mean()

    trial = record(tmp_path, model, loss_of, data, steps=30)
    assert [one.level for one in findings(trial, "targets-equal-inputs")] == (["warning"] if compared else [])


@pytest.mark.parametrize(
    ("samples", "noise", "rate", "told"), [(2, 0.0, 1e-6, True), (2, 2.0, 1e-2, True), (32, 2.0, 1e-2, False)]
)
def test_batches_of_two_samples(samples: int, noise: float, rate: float, told: bool, tmp_path: Path) -> None:
    """Of a loss that does not fall, and of one that falls, but wildly."""
    torch.manual_seed(0)
    model = mlp(6, 16, 2)

    def data(number: int) -> Batch:
        x, y = curve(samples, seed=number)
        return x, y + 4 + noise * torch.randn(y.shape, generator=torch.Generator().manual_seed(number))

    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), data, lr=rate, steps=150, every=2)
    assert bool(findings(trial, "tiny-batch")) == told


@pytest.mark.parametrize(("layers", "told"), [((0,), False), ((0, 2), True)])
def test_one_of_three_weights_that_jumps_is_no_reset(layers: tuple[int, ...], told: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(8, 16, 16, 4)

    def data(number: int) -> Batch:
        if number == 20:
            for layer in layers:
                model[layer].reset_parameters()
        return blob_batches(number)

    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), data, lr=0.03)
    assert bool(findings(trial, "weights-reset")) == told
