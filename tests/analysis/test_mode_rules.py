"""Rules about modes and schedules: on runs that have the problem, and on look-alikes that have not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import lr_scheduler

from stepscope.recorder import Recorder
from stepscope.store import Trial, open_trial
from support.short_runs import blobs, descend, findings, images, mlp, only, record


class Net(nn.Module):
    def __init__(self, momentum: float = 0.1) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8, momentum=momentum)
        self.head = nn.Linear(8 * 36, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.norm(3 * self.conv(x) + 5)).flatten(1))


def run(folder: Path, model: Net, *, eval_mode: bool, before: Callable[[int], None] | None = None) -> Trial:
    def evaluate(recorder: Recorder) -> None:
        model.train(not eval_mode)
        for n in range(4):
            inputs, labels = images(1000 + n)
            with recorder.step(kind="validation"), torch.no_grad():
                F.cross_entropy(model(inputs), labels)

    count = iter(range(1000))

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if before is not None:
            before(next(count))
        return F.cross_entropy(model(x), y)

    return record(folder, model, loss, images, steps=40, after=evaluate)


def test_batch_norm_in_the_right_modes(tmp_path: Path) -> None:
    assert findings(run(tmp_path, Net(), eval_mode=True), "batch-norm-mode") == []


def test_batch_norm_that_evaluates_by_the_batch(tmp_path: Path) -> None:
    finding = only(run(tmp_path, Net(), eval_mode=False), "batch-norm-mode")
    assert finding.node == "model.norm" and finding.step == 40 and "model.eval()" in finding.summary
    assert finding.source is not None and finding.source.text == "F.cross_entropy(model(inputs), labels)"


def test_train_is_not_called_again(tmp_path: Path) -> None:
    model = Net()
    trial = run(tmp_path, model, eval_mode=True, before=lambda number: model.eval() if number == 10 else None)
    finding = only(trial, "batch-norm-mode")
    assert finding.step == 10 and "30 of 40" in finding.summary and finding.level == "warning"


@pytest.mark.parametrize("frozen", [True, False])
def test_batch_norm_that_is_never_in_training_mode(frozen: bool, tmp_path: Path) -> None:
    model = Net()
    model.norm.requires_grad_(not frozen)
    trial = run(tmp_path, model, eval_mode=True, before=lambda number: model.eval() if number == 0 else None)
    assert [finding.level for finding in findings(trial, "batch-norm-mode")] == ([] if frozen else ["info"])


def test_running_statistics_that_had_no_time(tmp_path: Path) -> None:
    finding = only(run(tmp_path, Net(momentum=1e-4), eval_mode=True), "batch-norm-mode")
    assert "do not fit" in finding.summary and finding.level == "warning"


def test_the_mean_of_a_normalisation_in_bfloat16_is_rounded(tmp_path: Path) -> None:
    model = Net()

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return F.cross_entropy(model(x), y)

    def evaluate_in_float32(recorder: Recorder) -> None:
        model.eval()
        with recorder.step(kind="validation"), torch.no_grad():
            model(images(1000)[0])

    assert findings(record(tmp_path, model, loss, images, steps=20, after=evaluate_in_float32), "batch-norm-mode") == []


# ---------------------------------------------------------------------- schedules

Schedule = Callable[[torch.optim.Optimizer], Any]


def scheduled(folder: Path, schedule: Schedule, every: int = 1, steps: int = 90, recorded: int = 3) -> Trial:
    model = mlp(8, 16, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    made = schedule(optimizer)
    count = iter(range(1, 1000))

    def train(loss: torch.Tensor, given: torch.optim.Optimizer) -> None:
        descend(loss, given)
        if every and next(count) % every == 0:
            made.step()

    def data(number: int) -> tuple[torch.Tensor, ...]:
        return blobs(seed=number)

    return record(
        folder,
        model,
        lambda x, y: F.cross_entropy(model(x), y),
        data,
        optimizer=optimizer,
        steps=steps,
        train=train,
        every=recorded,
    )


def test_a_cosine_for_epochs_that_is_stepped_every_batch(tmp_path: Path) -> None:
    trial = scheduled(tmp_path, lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 10), steps=50, recorded=1)
    finding = only(trial, "scheduler-rhythm")
    assert finding.level == "warning" and "swings" in finding.summary and finding.step in (9, 10)


@pytest.mark.parametrize(
    "schedule",
    [
        lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 90),
        lambda optimizer: lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 20),
        lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=91),
        lambda optimizer: lr_scheduler.CyclicLR(optimizer, 0.01, 0.1, step_size_up=10),
        lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 20)),
    ],
)
def test_schedules_as_they_should_be(schedule: Schedule, tmp_path: Path) -> None:
    assert findings(scheduled(tmp_path, schedule), "scheduler-rhythm") == []


def test_a_schedule_that_is_never_stepped(tmp_path: Path) -> None:
    finding = only(
        scheduled(tmp_path, lambda o: lr_scheduler.StepLR(o, 5), every=0, recorded=1, steps=51), "scheduler-rhythm"
    )
    assert finding.level == "info" and "not yet" in finding.summary


def test_a_warm_up_that_is_never_stepped(tmp_path: Path) -> None:
    trial = scheduled(
        tmp_path, lambda o: lr_scheduler.LambdaLR(o, lambda step: step / 20), every=0, steps=6, recorded=1
    )
    finding = only(trial, "scheduler-rhythm")
    assert finding.level == "warning" and "warm-up" in finding.summary


def test_one_epoch_of_a_schedule_for_epochs(tmp_path: Path) -> None:
    assert findings(scheduled(tmp_path, lambda o: lr_scheduler.StepLR(o, 5), every=15), "scheduler-rhythm") == []


@pytest.mark.parametrize("mixed", [False, True])
def test_batches_that_are_each_of_one_source(mixed: bool, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)

    def batch(number: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(number)
        sources = torch.randn(32 if mixed else 1, 8, generator=generator)
        return 2 * sources + torch.randn(32, 8, generator=generator), torch.randint(2, (32,), generator=generator)

    with Recorder(tmp_path, trial="t", schedule={"*": 1}, strict=True) as recorder:
        recorder.watch(net, optimizer)
        for number in range(60):
            is_training = number % 6 != 5
            net.train(is_training)
            x, y = batch(number)
            with recorder.step("train" if is_training else "validation"), torch.set_grad_enabled(is_training):
                loss = F.cross_entropy(net(x), y)
                if is_training:
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
    found = findings(open_trial(tmp_path / "t"), "batch-norm-mode")
    assert [finding.level for finding in found] == ([] if mixed else ["info"])
