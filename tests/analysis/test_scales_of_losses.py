"""Losses whose scale is wrong: exponentials, softened answers, classes judged one by one; and their look-alikes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.store import Trial
from support.short_runs import Batch, blob_batches, blobs, curve_batches, findings, mlp, record

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def levels(trial: Trial, rule: str) -> list[str]:
    return [finding.level for finding in findings(trial, rule)]


@pytest.mark.parametrize(
    ("way", "found"), [("exp", ["warning"]), ("exp of a part", ["warning"]), ("looked at", []), ("of a scale", [])]
)
def test_the_exponential_of_a_loss(way: str, found: list[str], tmp_path: Path) -> None:
    model = mlp(8, 16, 4)
    scale = nn.Parameter(torch.zeros(()))
    model.register_parameter("scale", scale)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        loss = F.cross_entropy(model(x), y)
        if way == "exp":
            return (loss / 2).exp()
        if way == "exp of a part":
            return 0.5 * torch.exp(loss) + 0.01 * scale.square()
        if way == "of a scale":
            return loss * (-scale).exp() + scale
        loss.exp()  # the perplexity
        return loss

    assert levels(record(tmp_path, model, loss_of, blob_batches, steps=6), "exponential-loss") == found


def test_what_an_exponential_overflows_to_stands_under_it(tmp_path: Path) -> None:
    model = mlp(8, 16, 4)

    def data(number: int) -> Batch:
        x, y = blobs(seed=number)
        return (x if number < 8 else 1e4 * x), y

    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y).exp(), data, steps=12)
    found = findings(trial)
    assert found[0].rule == "exponential-loss"
    assert "non-finite" in [finding.rule for finding in found[0].consequences]


@pytest.mark.parametrize(
    ("heat", "weights", "found"),
    [
        (4.0, (0.7, 0.3), ["warning"]),
        (4.0, (0.7 * 16, 0.3), []),
        (4.0, (0.5, 0.2), ["info"]),
        (1.0, (0.7, 0.3), []),
        (4.0, (0.7, 0.0), []),
    ],
)
def test_softened_answers(heat: float, weights: tuple[float, float], found: list[str], tmp_path: Path) -> None:
    model, teacher = mlp(8, 16, 4), mlp(8, 16, 4).requires_grad_(False)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        scores = model(x)
        soft = (teacher(x) / heat).softmax(1)
        distilled = F.kl_div((scores / heat).log_softmax(1), soft, reduction="batchmean")
        return weights[0] * distilled + (weights[1] * F.cross_entropy(scores, y) if weights[1] else 0.0)

    assert levels(record(tmp_path, model, loss_of, blob_batches, steps=6), "unscaled-distillation") == found


def binary(rows: Callable[[torch.Tensor], torch.Tensor], model: nn.Module) -> Loss:
    return lambda x, y: F.binary_cross_entropy_with_logits(model(x), rows(y))


def one_hot(y: torch.Tensor) -> torch.Tensor:
    return F.one_hot(y, 4).float()


@pytest.mark.parametrize(
    ("rows", "lr", "found"),
    [
        (one_hot, 1e-5, ["warning"]),
        (one_hot, 1e-2, []),
        (lambda y: one_hot(y) + one_hot((y + y % 2) % 4).clamp(max=1), 1e-5, []),
        (lambda y: 0.9 * one_hot(y) + 0.025, 1e-5, []),
    ],
)
def test_classes_that_exclude_each_other(
    rows: Callable[[torch.Tensor], torch.Tensor], lr: float, found: list[str], tmp_path: Path
) -> None:
    model = nn.Sequential(nn.Linear(8, 4))
    nn.init.constant_(model[0].bias, -1.1)  # the share of one in four
    nn.init.normal_(model[0].weight, std=0.01)
    loss_of = binary(lambda y: rows(y).clamp(max=1), model)
    assert levels(record(tmp_path, model, loss_of, blob_batches, steps=150, lr=lr), "exclusive-classes") == found


def test_one_number_for_a_column_for_each_class(tmp_path: Path) -> None:
    model = mlp(8, 16, 1, last=[nn.Sigmoid()])

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        truth, chance = F.one_hot(y % 2, 2).float(), model(x).clamp(1e-6, 1 - 1e-6)
        return -(truth * chance.log() + (1 - truth) * (1 - chance).log()).mean()

    (found,) = findings(record(tmp_path, model, loss_of, blob_batches, steps=6), "broadcast-target")
    assert found.level == "error"
    assert "one-hot" in found.summary


@pytest.mark.parametrize("targets", ["several", "a column"])
def test_one_number_for_several_numbers_is_no_matter_of_classes(targets: str, tmp_path: Path) -> None:
    model = mlp(6, 16, 1)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (model(x) - (y if targets == "several" else y[:, :1])).square().mean()

    assert findings(record(tmp_path, model, loss_of, curve_batches, steps=6), "broadcast-target") == []


@pytest.mark.parametrize(
    ("size", "lr", "level"), [(300.0, 1e-2, "warning"), (300.0, 0.03, "info"), (1.0, 1e-2, None), (300.0, 0.5, None)]
)
def test_targets_far_larger_than_what_a_net_begins_with(
    size: float, lr: float, level: str | None, tmp_path: Path
) -> None:
    model = mlp(6, 32, 2)

    def data(number: int) -> Batch:
        x, y = curve_batches(number)
        return x, size * (y + 1)

    trial = record(tmp_path, model, lambda x, y: F.smooth_l1_loss(model(x), y), data, steps=150, lr=lr)
    assert levels(trial, "target-scale") == ([] if level is None else [level])
