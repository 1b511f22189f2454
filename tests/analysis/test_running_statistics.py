"""Batch normalisations whose running statistics never began, move although all is frozen, or are not used."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Every, Recorder
from stepscope.store import Trial, open_trial
from support.short_runs import blobs, descend, findings, only, record


def net(momentum: float = 0.1) -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16, momentum=momentum), nn.ReLU(), nn.Linear(16, 4))


def learned() -> nn.Sequential:
    """A net that was trained before, on data of another place."""
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for number in range(20):
        inputs, labels = blobs(seed=number)
        descend(F.cross_entropy(model(3 * inputs + 1), labels), optimizer)
    model.zero_grad()
    return model


def teach(folder: Path, *, statistics: bool, size: float = 4.0, moves: bool = True) -> Trial:
    """A teacher in evaluation mode, an average of the student, that says what the student shall say."""
    student = net()
    teacher = deepcopy(student).requires_grad_(False).eval()
    optimizer = torch.optim.Adam(student.parameters(), 1e-2)
    with Recorder(folder, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch({"student": student, "teacher": teacher}, optimizer)
        for number in range(12):
            inputs, labels = blobs(seed=number)
            with recorder.step():
                with torch.no_grad():
                    wanted = teacher(size * inputs).softmax(1)
                scores = student(size * inputs)
                descend(F.cross_entropy(scores, labels) + F.mse_loss(scores.softmax(1), wanted), optimizer)
            with torch.no_grad():
                for one, two in zip(teacher.parameters(), student.parameters(), strict=True):
                    one.lerp_(two, 0.1 * moves)
                for one, two in zip(teacher.buffers(), student.buffers(), strict=True):
                    if statistics:
                        one.copy_(two)
    return open_trial(folder / "trial")


def test_a_teacher_whose_statistics_never_began(tmp_path: Path) -> None:
    finding = only(teach(tmp_path, statistics=False), "batch-norm-mode")
    assert finding.node == "teacher.1" and finding.level == "warning" and "never learned" in finding.summary


@pytest.mark.parametrize(
    ("given", "levels"),
    [
        ({"statistics": True}, []),
        ({"statistics": False, "size": 1.7}, []),  # does nothing, and nothing is missed
        ({"statistics": False, "moves": False}, ["info"]),  # random features, perhaps
    ],
)
def test_teachers_that_may_be_meant(given: dict[str, bool], levels: list[str], tmp_path: Path) -> None:
    assert [finding.level for finding in findings(teach(tmp_path, **given), "batch-norm-mode")] == levels


def test_a_net_that_is_told_to_evaluate_before_it_ever_trained(tmp_path: Path) -> None:
    model = net().eval()
    trial = record(
        tmp_path, model, lambda x, y: F.cross_entropy(model(9 * x), y), lambda n: blobs(seed=n), lr=1e-3, steps=12
    )
    levels = {finding.level for finding in findings(trial, "batch-norm-mode")}
    assert levels == {"warning", "info"}  # that the mode is the same in all steps is worth knowing by itself


@pytest.mark.parametrize(("evaluates", "count"), [(False, 1), (True, 0)])
def test_statistics_of_frozen_layers(evaluates: bool, count: int, tmp_path: Path) -> None:
    body = learned().requires_grad_(False)
    body[3].requires_grad_(True)
    body.train(not evaluates)
    trial = record(tmp_path, body, lambda x, y: F.cross_entropy(body(x), y), lambda n: blobs(seed=n), steps=12)
    found = findings(trial, "batch-norm-mode")
    assert [finding.level for finding in found] == ["info"] * count
    assert all(finding.node == "model.1" and "frozen" in finding.summary for finding in found)


@pytest.mark.parametrize("new", [True, False])
def test_statistics_that_are_to_move(new: bool, tmp_path: Path) -> None:
    """Random features that find their statistics; and a net that goes on learning."""
    body = net() if new else learned()
    body[0].requires_grad_(not new)
    body[1].requires_grad_(not new)
    trial = record(tmp_path, body, lambda x, y: F.cross_entropy(body(x), y), lambda n: blobs(seed=n), steps=12)
    assert findings(trial, "batch-norm-mode") == []


class ByHand(nn.Module):
    """Its own normalisation, by torch's function; with the statistics of the batch, or by its mode."""

    def __init__(self, *, told: bool, kept: bool = True) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 4)
        self.register_buffer("mean", torch.zeros(16) if kept else None)
        self.register_buffer("variance", torch.ones(16) if kept else None)
        self.told, self.kept = told, kept

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        training = self.told or self.training or not self.kept
        x = F.batch_norm(self.first(x), self.mean, self.variance, training=training)
        return self.last(x.relu())


@pytest.mark.parametrize(
    ("model", "count"),
    [(ByHand(told=True), 1), (ByHand(told=False), 0), (ByHand(told=False, kept=False), 0)],  # the last one has no other
)
def test_a_function_that_is_told_to_train(model: ByHand, count: int, tmp_path: Path) -> None:
    def evaluate(recorder: Recorder) -> None:
        model.eval()
        for number in range(3):
            with recorder.step(kind="validation"), torch.no_grad():
                inputs, labels = blobs(seed=1000 + number)
                F.cross_entropy(model(inputs), labels)

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), y)

    trial = record(tmp_path, model, loss, lambda n: blobs(seed=n), steps=12, after=evaluate)
    found = findings(trial, "batch-norm-mode")
    assert len(found) == count
    for finding in found:
        assert finding.level == "warning" and finding.step == 12
        assert finding.source is not None and "F.batch_norm" in finding.source.text
