"""Rules about the size of signals, gradients and updates: on runs that have the problem, and on look-alikes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Every, Recorder
from stepscope.store import Trial, open_trial
from support.short_runs import (
    Batch,
    blob_batches,
    blobs,
    curve,
    curve_batches,
    descend,
    findings,
    images,
    mlp,
    only,
    record,
)


def regress(folder: Path, model: nn.Module, **options: Any) -> Trial:
    options = {"steps": 12, **options}
    return record(folder, model, lambda x, y: F.mse_loss(model(x), y), curve_batches, **options)


def classify(folder: Path, model: nn.Module, **options: Any) -> Trial:
    options = {"steps": 12, **options}
    return record(folder, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, **options)


# ---------------------------------------------------------------------- gradients along the graph and time


def test_gradients_vanish_through_many_sigmoids(tmp_path: Path) -> None:
    finding = only(regress(tmp_path, mlp(6, *[16] * 8, 2, activation=nn.Sigmoid)), "vanishing-gradient")
    assert finding.node.startswith("model.") and "model.0" in (finding.node, *finding.nodes)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.GELU])
def test_gradients_of_a_deep_net_that_is_well_initialised(tmp_path: Path, activation: Any) -> None:
    model = mlp(6, *[32] * 5, 2, activation=activation)
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
    assert findings(regress(tmp_path, model), "vanishing-gradient", "exploding-gradient", "weight-scale") == []


def test_gradients_explode_towards_the_input(tmp_path: Path) -> None:
    model = mlp(6, *[32] * 6, 2)
    with torch.no_grad():
        for layer in model[1:]:
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(20)
        model[0].weight.mul_(1e-7)
    found = findings(regress(tmp_path, model, lr=1e-9), "exploding-gradient")
    assert found and "model.0" in (found[0].node, *found[0].nodes)


def test_a_gradient_that_explodes_at_a_step(tmp_path: Path) -> None:
    model = mlp(6, 16, 2)

    def data(n: int) -> Batch:
        inputs, targets = curve(seed=n)
        return inputs * (300 if n == 20 else 1), targets

    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), data, steps=26, lr=1e-3)
    assert only(trial, "exploding-gradient").step == 20


# ---------------------------------------------------------------------- units


def test_dead_units_and_a_dead_layer(tmp_path: Path) -> None:
    model = mlp(6, 16, 16, 2)
    with torch.no_grad():
        model[2].bias.fill_(-30)
    finding = only(regress(tmp_path, model), "dead-units")
    assert (finding.node, finding.level) == ("model.3", "error")


def test_dead_units_behind_a_relu_without_a_name(tmp_path: Path) -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 8, 3), nn.Linear(8 * 36, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(F.relu(self.conv(x)).flatten(1))

    model = Plain()
    with torch.no_grad():
        model.conv.bias[:6] = -30
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), images, steps=12)
    finding = only(trial, "dead-units")
    assert finding.node == "model.conv" and "6 of 8" in finding.summary
    assert finding.level == "info"  # two are enough: it learns


def test_units_that_nobody_reads_are_not_dead(tmp_path: Path) -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Sequential(nn.Linear(6, 16), nn.Tanh()), nn.Linear(16, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.body(x))[:, :2]

    assert findings(regress(tmp_path, Half()), "dead-units") == []


def test_units_that_are_often_zero_are_not_dead(tmp_path: Path) -> None:
    model = mlp(6, 32, 32, 2)
    with torch.no_grad():
        model[2].bias.fill_(-0.2)
    assert findings(regress(tmp_path, model), "dead-units") == []


@pytest.mark.parametrize("activation", [nn.Tanh, nn.Sigmoid])
def test_saturated_units(tmp_path: Path, activation: Any) -> None:
    model = mlp(6, 16, 16, 2, activation=activation)
    with torch.no_grad():
        model[2].weight.mul_(300)
    finding = only(regress(tmp_path, model, lr=1e-4), "saturated-activation")
    assert finding.node == "model.3" and finding.level == "warning"


def test_an_output_may_be_sure_of_itself(tmp_path: Path) -> None:
    model = mlp(8, 16, 1, last=(nn.Sigmoid(), nn.Flatten(0)))
    trial = record(
        tmp_path, model, lambda x, y: F.binary_cross_entropy(model(x), y.float()), lambda n: blobs(classes=2, seed=n),
        steps=40, lr=0.1,
    )  # fmt: skip
    assert findings(trial, "saturated-activation") == []


# ---------------------------------------------------------------------- weights and updates


@pytest.mark.parametrize(("factor", "how"), [(15.0, "too large"), (0.01, "too small")])
def test_weights_of_the_wrong_size(tmp_path: Path, factor: float, how: str) -> None:
    model = mlp(6, 32, 32, 2)
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight.mul_(factor)
    finding = only(regress(tmp_path, model), "weight-scale")
    assert finding.node == "model.0.weight" and how in finding.summary


def test_weights_that_are_all_equal(tmp_path: Path) -> None:
    model = mlp(6, 16, 2)
    nn.init.constant_(model[0].weight, 0.1)
    finding = only(regress(tmp_path, model), "weight-scale")
    assert finding.level == "error" and finding.node == "model.0.weight"


def test_weights_that_are_all_zero(tmp_path: Path) -> None:
    model = mlp(6, 16, 16, 2)
    for layer in (model[0], model[2], model[4]):
        nn.init.zeros_(layer.weight)
    finding = only(regress(tmp_path, model), "weight-scale")
    assert finding.level == "error" and "3 of 3 layers" in finding.summary


def test_a_last_layer_of_zeros_is_a_good_start(tmp_path: Path) -> None:
    model = mlp(6, 16, 2)
    nn.init.zeros_(model[2].weight)
    assert findings(regress(tmp_path, model), "weight-scale", "learning-rate") == []


@pytest.mark.parametrize(("lr", "how"), [(1.0, "high"), (1e-7, "low")])
def test_a_learning_rate_far_off(tmp_path: Path, lr: float, how: str) -> None:
    finding = only(classify(tmp_path, mlp(8, 64, 64, 4), lr=lr, steps=20), "learning-rate")
    assert f"too {how}" in finding.summary and f"{lr:g}" in finding.summary


@pytest.mark.parametrize("lr", [1e-2, 1e-3])
def test_a_learning_rate_that_works(tmp_path: Path, lr: float) -> None:
    assert findings(classify(tmp_path, mlp(8, 64, 64, 4), lr=lr, steps=20), "learning-rate") == []


@pytest.mark.parametrize("every", [1, 4])
def test_gradients_that_are_never_set_to_zero(tmp_path: Path, every: int) -> None:
    model = mlp(6, 16, 16, 2)

    def train(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        loss.backward()
        optimizer.step()

    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    trial = regress(tmp_path, model, train=train, optimizer=optimizer, every=every, steps=12 * every)
    finding = only(trial, "accumulated-gradients")
    assert finding.level == "error" and finding.node.endswith(".bias")


@pytest.mark.parametrize("every", [1, 3])
def test_gradients_that_are_accumulated_on_purpose(tmp_path: Path, every: int) -> None:
    model = mlp(6, 16, 16, 2)
    calls = iter(range(1000))

    def train(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        (loss / 4).backward()
        if next(calls) % 4 == 3:
            optimizer.step()
            optimizer.zero_grad()

    trial = regress(tmp_path, model, train=train, every=every, steps=24 * every)
    assert findings(trial, "accumulated-gradients") == []


# ---------------------------------------------------------------------- data and outputs


def test_pixels_from_0_to_255(tmp_path: Path) -> None:
    def data(n: int) -> Batch:
        pixels, labels = images(n)
        return (40 * pixels + 128).clamp(0, 255), labels

    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 4))
    finding = only(record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), data, steps=6), "input-scale")
    assert finding.node == "input" and finding.nodes == ("model.0",)


@pytest.mark.parametrize("how", ["divided", "normalised"])
def test_pixels_that_the_net_itself_takes_care_of(tmp_path: Path, how: str) -> None:
    class Careful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(6)
            self.body = mlp(6, 16, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x / 255 if how == "divided" else self.norm(x))

    model = Careful()
    trial = record(
        tmp_path, model, lambda x, y: F.mse_loss(model(x), y), lambda n: (255 * curve(seed=n)[0], curve(seed=n)[1])
    )
    assert findings(trial, "input-scale") == []


@pytest.mark.parametrize("which", ["input", "target"])
def test_data_that_is_the_same_for_all_samples(tmp_path: Path, which: str) -> None:
    def data(n: int) -> Batch:
        inputs, targets = curve(seed=n)
        return (inputs[:1].repeat(64, 1), targets) if which == "input" else (inputs, targets[:1].repeat(64, 1))

    model = mlp(6, 16, 2)
    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), data, steps=6)
    assert only(trial, "constant-data").node == which


def test_an_output_that_is_the_same_for_all_samples(tmp_path: Path) -> None:
    model = mlp(8, 16, 1, last=(nn.Softmax(1), nn.Flatten(0)))
    trial = record(
        tmp_path, model, lambda x, y: F.binary_cross_entropy(model(x), y.float()), lambda n: blobs(classes=2, seed=n),
        steps=8,
    )  # fmt: skip
    finding = only(trial, "constant-output")
    assert finding.node == "model.3" and finding.level == "error"


@pytest.mark.parametrize("how", ["broadcast", "squeezed"])
def test_a_target_that_broadcasts(tmp_path: Path, how: str) -> None:
    model = mlp(6, 16, 1)

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        outputs = model(x)
        return ((outputs if how == "broadcast" else outputs.squeeze(-1)) - y).pow(2).mean()

    trial = record(tmp_path, model, loss, lambda n: (curve(seed=n)[0], curve(seed=n)[1][:, 0].clone()), steps=12)
    found = findings(trial, "broadcast-target")
    assert [finding.level for finding in found] == (["error"] if how == "broadcast" else [])
    if found:
        assert "(64, 1)" in found[0].summary and "(64, 64)" in found[0].summary


@pytest.mark.parametrize("batch", [2, 32])
def test_batch_norm_over_few_values(tmp_path: Path, batch: int) -> None:
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))
    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), lambda n: curve(batch, seed=n), steps=6)
    assert [finding.node for finding in findings(trial, "small-batch-norm")] == (["model.1"] if batch == 2 else [])


@pytest.mark.parametrize("fresh", [True, False])
def test_overfitting(tmp_path: Path, fresh: bool) -> None:
    model = mlp(8, 128, 128, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    validation = blobs(256, seed=777)
    labels = torch.randint(4, (12,))
    with Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch(model, optimizer)
        for n in range(60):
            inputs, wanted = blobs(seed=n) if fresh else (blobs(12)[0], labels)
            with recorder.step():
                descend(F.cross_entropy(model(inputs), wanted), optimizer)
            if n % 5 == 4:
                with recorder.step(kind="validation") as step, torch.no_grad():
                    step.record("loss", F.cross_entropy(model(validation[0]), validation[1]), type="loss")
    found = findings(open_trial(tmp_path / "trial"), "overfitting")
    assert [finding.level for finding in found] == ([] if fresh else ["warning"])
