"""Rules about how a run is set up: on runs that have the problem, and on look-alikes that have not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Every, Recorder
from stepscope.store import Trial, open_trial
from support.short_runs import Batch, blob_batches, blobs, curve, curve_batches, descend, findings, mlp, only, record


def classify(folder: Path, model: nn.Module, **options: Any) -> Trial:
    options = {"steps": 8, **options}
    return record(folder, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, **options)


def regress(folder: Path, model: nn.Module, **options: Any) -> Trial:
    options = {"steps": 8, **options}
    return record(folder, model, lambda x, y: F.mse_loss(model(x), y), curve_batches, **options)


@pytest.mark.parametrize("calls_eval", [True, False])
def test_dropout_that_is_active_while_evaluating(tmp_path: Path, calls_eval: bool) -> None:
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 4))
    optimizer = torch.optim.Adam(model.parameters())
    with Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch(model, optimizer)
        for n in range(6):
            inputs, labels = blobs(seed=n)
            model.train()
            with recorder.step():
                descend(F.cross_entropy(model(inputs), labels), optimizer)
            if calls_eval:
                model.eval()
            with recorder.step(kind="validation"), torch.no_grad():
                F.cross_entropy(model(inputs), labels)
    found = findings(open_trial(tmp_path / "trial"), "dropout-mode")
    assert [finding.node for finding in found] == ([] if calls_eval else ["model.2"])


@pytest.mark.parametrize(("rate", "alarms"), [(0.9, 1), (0.5, 0)])
def test_dropout_that_drops_almost_everything(tmp_path: Path, rate: float, alarms: int) -> None:
    model = nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Dropout(rate), nn.Linear(64, 4))
    assert len(findings(classify(tmp_path, model), "dropout-mode")) == alarms


@pytest.mark.parametrize(("dimension", "alarms"), [(0, 1), (1, 0)])
def test_a_softmax_over_the_samples(tmp_path: Path, dimension: int, alarms: int) -> None:
    model = mlp(8, 16, 4, last=(nn.Softmax(dimension),))
    trial = record(
        tmp_path, model, lambda x, y: F.nll_loss(torch.log(model(x) + 1e-6), y), blob_batches, steps=6
    )  # fmt: skip
    found = findings(trial, "softmax-over-batch")
    assert [finding.node for finding in found] == ["model.3"] * alarms


@pytest.mark.parametrize("outputs", [1, 2])
def test_cross_entropy_over_one_class(tmp_path: Path, outputs: int) -> None:
    model = mlp(8, 16, outputs)
    trial = record(
        tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), lambda n: (blobs(seed=n)[0], 0 * blobs(seed=n)[1])
    )
    found = findings(trial, "single-class")
    assert [finding.level for finding in found] == (["error"] if outputs == 1 else [])


@pytest.mark.parametrize(("decay", "alarms"), [(5.0, 1), (0.4, 0), (0.01, 0)])
def test_weights_that_shrink_away(tmp_path: Path, decay: float, alarms: int) -> None:
    model = mlp(6, 16, 16, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, weight_decay=decay)
    found = findings(regress(tmp_path, model, optimizer=optimizer, steps=40), "shrinking-weights")
    assert len(found) == alarms


@pytest.mark.parametrize(("gamma", "alarms"), [(0.5, 1), (0.97, 0)])
def test_a_schedule_that_is_over_too_early(tmp_path: Path, gamma: float, alarms: int) -> None:
    model = mlp(6, 16, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma)

    def train(loss: torch.Tensor, given: torch.optim.Optimizer) -> None:
        descend(loss, given)
        schedule.step()

    found = findings(regress(tmp_path, model, optimizer=optimizer, train=train, steps=40), "learning-rate-decay")
    assert len(found) == alarms


@pytest.mark.parametrize(("eps", "alarms"), [(10.0, 1), (1.0, 1), (1e-3, 0), (1e-8, 0)])
def test_an_epsilon_that_outweighs_the_gradients(tmp_path: Path, eps: float, alarms: int) -> None:
    model = mlp(6, 16, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, eps=eps)
    assert len(findings(regress(tmp_path, model, optimizer=optimizer), "adam-epsilon")) == alarms


@pytest.mark.parametrize("how", ["raw", "scaled on the way", "standardised"])
def test_targets_in_their_own_units(tmp_path: Path, how: str) -> None:
    model = mlp(6, 16, 2)

    def data(n: int) -> Batch:
        inputs, targets = curve(seed=n)
        return inputs, targets if how == "standardised" else 500 + 100 * targets

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(x), (y - 500) / 100 if how == "scaled on the way" else y)

    trial = record(tmp_path, model, loss, data, steps=50)
    if how == "raw":
        assert only(trial, "target-scale").node == "target"
    else:
        assert findings(trial, "target-scale") == []


@pytest.mark.parametrize(("size", "alarms"), [(5e4, 1), (10.0, 0)])
def test_numbers_near_the_end_of_their_dtype(tmp_path: Path, size: float, alarms: int) -> None:
    model = nn.Linear(4, 2, dtype=torch.float16)
    trial = record(
        tmp_path, model, lambda x, y: (model(x).float() - y).pow(2).mean(),
        lambda n: (torch.full((8, 4), size, dtype=torch.float16) * torch.randn(8, 4).sign().half(), torch.zeros(8, 2)),
        lr=0.0, steps=3,
    )  # fmt: skip
    assert len(findings(trial, "dtype-range")) == alarms
