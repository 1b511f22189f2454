"""Rules about data: on runs that have the problem, and on look-alikes that have not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.store import Trial
from support.short_runs import Batch, blobs, curve, findings, mlp, record

RULES = ("duplicate-samples", "extreme-features", "unrelated-targets")


def found(trial: Trial) -> list[tuple[str, str]]:
    return [(finding.rule, finding.node) for finding in findings(trial, *RULES)]


def train(folder: Path, data: object, steps: int = 12, lr: float = 1e-2) -> Trial:
    model = mlp(8, 16, 4)
    return record(folder, model, lambda x, y: F.cross_entropy(model(x), y), data, steps=steps, lr=lr)  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["every batch", "one batch", "never"])
def test_the_same_sample_several_times(how: str, tmp_path: Path) -> None:
    def data(number: int) -> Batch:
        inputs, labels = blobs(seed=number)
        if how == "every batch" or (how == "one batch" and number == 4):
            inputs, labels = inputs.clone(), labels.clone()
            inputs[3], labels[3] = inputs[1], labels[1]
        return inputs, labels

    expected = [("duplicate-samples", "input")] if how == "every batch" else []
    assert found(train(tmp_path, data)) == expected


def test_short_sentences_repeat_by_chance(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))

    def data(number: int) -> Batch:
        labels = torch.arange(64) % 4
        return F.one_hot(labels, 8).float(), labels

    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), data, steps=12)
    assert found(trial) == []


@pytest.mark.parametrize("factor", [1.0, 20.0, 5000.0])
def test_a_column_that_drowns_the_others(factor: float, tmp_path: Path) -> None:
    def data(number: int) -> Batch:
        inputs, labels = blobs(seed=number)
        return inputs * torch.tensor([1, 1, factor, 1, 1, 1, 1, 1]), labels

    assert found(train(tmp_path, data)) == ([("extreme-features", "input")] if factor > 1000 else [])


@pytest.mark.parametrize("how", ["shuffled", "right"])
def test_labels_of_other_samples(how: str, tmp_path: Path) -> None:
    def data(number: int) -> Batch:
        inputs, labels = blobs(seed=number)
        return inputs, labels if how == "right" else labels[torch.randperm(len(labels))]

    expected = [("unrelated-targets", "target")] if how == "shuffled" else []
    assert found(train(tmp_path, data, steps=40, lr=1e-3)) == expected


@pytest.mark.parametrize("shuffled", [True, False])
def test_a_loss_that_does_not_fall_although_the_data_are_fine(shuffled: bool, tmp_path: Path) -> None:
    model = mlp(6, 16, 2)

    def data(number: int) -> Batch:
        inputs, targets = curve(seed=number)
        return inputs, targets[torch.randperm(len(targets))] if shuffled else targets

    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), data, steps=40, lr=1e-6)
    assert found(trial) == ([("unrelated-targets", "target")] if shuffled else [])
