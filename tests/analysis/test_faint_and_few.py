"""Signals that fade, sizes lost to classes, noise that is always the same, few samples, weighed-away classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Recorder
from stepscope.store import Trial, open_trial
from support.short_runs import Batch, blob_batches, blobs, curve_batches, findings, images, mlp, record


def levels(trial: Trial, rule: str) -> list[str]:
    return [finding.level for finding in findings(trial, rule)]


def told(trial: Trial, rule: str, word: str) -> list[str]:
    return [finding.level for finding in findings(trial, rule) if word in finding.summary]


@pytest.mark.parametrize(("initial", "found"), [("default", ["warning"]), ("kaiming", [])])
def test_what_fades_from_layer_to_layer(initial: str, found: list[str], tmp_path: Path) -> None:
    model = mlp(8, *[24] * 8, 4)
    for layer in model[:-1]:
        if initial == "kaiming" and isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    trial = record(
        tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, steps=80, optimizer=optimizer
    )
    assert levels(trial, "fading-signal") == found


@pytest.mark.parametrize(
    ("norm", "asked", "found"), [("instance", "depth", ["warning"]), ("batch", "depth", []), ("instance", "place", [])]
)
def test_a_depth_that_is_normalised_away_from_classes(norm: str, asked: str, found: list[str], tmp_path: Path) -> None:
    kind = nn.InstanceNorm2d if norm == "instance" else nn.BatchNorm2d
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), kind(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4)
    )

    def data(number: int) -> Batch:
        x, place = images(number)
        depth = torch.randint(2, (len(x),), generator=torch.Generator().manual_seed(number + 1000))
        return x * (0.4 + 1.6 * depth)[:, None, None, None], depth if asked == "depth" else place

    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), data, steps=40, lr=1e-3)
    assert levels(trial, "lost-scale") == found


@pytest.mark.parametrize("way", ["one noise", "new noise", "a shift", "residuals"])
def test_noise_that_each_sample_gets(way: str, tmp_path: Path) -> None:
    model = mlp(6, 32, 6)
    once = torch.randn(6, generator=torch.Generator().manual_seed(5))

    def data(number: int) -> Batch:
        generator = torch.Generator().manual_seed(number)
        clean = torch.randn(32, 6, generator=generator)
        noise = {"one noise": once, "a shift": torch.tensor(0.7)}.get(way, torch.randn(32, 6, generator=generator))
        return clean + noise, clean

    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), data, steps=12)
    assert told(trial, "repeated-randomness", "same noise") == (["warning"] if way == "one noise" else [])


@pytest.mark.parametrize(("samples", "found"), [(40, 1), (3000, 0)])
def test_few_samples_that_are_known_by_heart(samples: int, found: int, tmp_path: Path) -> None:
    x, y = blobs(samples + 200, classes=10)
    generator = torch.Generator().manual_seed(0)
    x = x + 1.0 * torch.randn(x.shape, generator=generator)
    model = mlp(8, 128, 10)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    with Recorder(tmp_path, trial="t", schedule={"train": 2, "*": 1}, strict=True) as recorder:
        recorder.watch(model, optimizer)
        for number in range(240):
            rows = torch.randint(samples, (32,), generator=generator)
            with recorder.step("train"):
                optimizer.zero_grad()
                F.cross_entropy(model(x[rows]), y[rows]).backward()
                optimizer.step()
            if number % 30 == 29:
                with torch.no_grad(), recorder.step("validation"):
                    F.cross_entropy(model(x[samples:]), y[samples:])
    trial = open_trial(tmp_path / "t")
    assert len([one for one in findings(trial, "overfitting")]) >= found
    assert len(told(trial, "overfitting", "different training samples")) <= found


@pytest.mark.parametrize(("weight", "found"), [(1e-4, ["warning"]), (0.3, [])])
def test_a_frequent_class_that_is_weighed_away(weight: float, found: list[str], tmp_path: Path) -> None:
    model, weights = mlp(8, 16, 4), torch.tensor([weight, 1.0, 1.0, 1.0])

    def data(number: int) -> Batch:
        x, y = blobs(seed=number)
        return x, y.where(torch.rand(len(y), generator=torch.Generator().manual_seed(number)) < 0.5, 0)

    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y, weight=weights), data, steps=40)
    assert told(trial, "imbalanced-targets", "class weight") == found


def test_two_hidden_units_with_which_little_is_learned(tmp_path: Path) -> None:
    def data(number: int) -> Batch:
        generator = torch.Generator().manual_seed(number)
        corner = torch.randint(2, (32, 2), generator=generator)
        return 2.0 * corner - 1, (corner.sum(1, keepdim=True) == 1).float()

    def run(hidden: int) -> Trial:
        model = mlp(2, hidden, 1, activation=nn.Sigmoid)
        optimizer = torch.optim.SGD(model.parameters(), 0.2, momentum=0.9)
        loss: Callable[..., torch.Tensor] = lambda x, y: F.binary_cross_entropy_with_logits(model(x), y)  # noqa: E731
        return record(tmp_path / str(hidden), model, loss, data, steps=100, optimizer=optimizer)

    assert levels(run(2), "single-unit") == ["info"]
    assert levels(run(20), "single-unit") == []


# ---------------------------------------------------------------------- look-alikes


def test_pixels_that_are_always_off_may_fall_without_end(tmp_path: Path) -> None:
    model = mlp(12, 16, 12)

    def data(number: int) -> Batch:
        ink = (torch.rand(32, 12, generator=torch.Generator().manual_seed(number)) < 0.5).float()
        ink[:, :3] = 0
        return (ink,)

    def loss_of(ink: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(model(ink), ink, reduction="none").sum(1).mean()

    assert findings(record(tmp_path, model, loss_of, data, steps=100, lr=1e-2), "unbounded-loss") == []


@pytest.mark.parametrize(("length", "leaks"), [(1, True), (2, False)])
def test_looking_back_at_another_sequence_by_hand_is_no_leak(length: int, leaks: bool, tmp_path: Path) -> None:
    class Translator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.place, self.head = nn.Embedding(20, 16), nn.Embedding(6, 16), nn.Linear(16, 20)

        def forward(self, before: torch.Tensor, *source: torch.Tensor) -> torch.Tensor:
            asked = self.words(before) + self.place.weight
            read = self.words(source[0] if source else before) + self.place.weight
            return self.head((asked @ read.mT).softmax(-1) @ read)

    model = Translator()

    def data(number: int) -> Batch:
        text = torch.randint(20, (32, 7), generator=torch.Generator().manual_seed(number))
        other = torch.randint(20, (32, 6), generator=torch.Generator().manual_seed(number + 500))
        return text[:, :-1], text[:, 1:], other

    def loss_of(before: torch.Tensor, following: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        scores = model(before, other) if length == 2 else model(before)
        return F.cross_entropy(scores.flatten(0, 1), following.flatten())

    assert bool(findings(record(tmp_path, model, loss_of, data, steps=12), "future-leak")) == leaks


def test_returns_shrink_as_a_policy_learns(tmp_path: Path) -> None:
    model = mlp(6, 16, 3)

    def data(number: int) -> Batch:
        x, _ = curve_batches(number)
        returns = 5 * 0.97**number * torch.randn(len(x), generator=torch.Generator().manual_seed(number))
        return x, returns

    def loss_of(x: torch.Tensor, returns: torch.Tensor) -> torch.Tensor:
        chances = model(x).log_softmax(1)
        return -(chances[:, 0] * returns).mean()

    trial = record(tmp_path, model, loss_of, data, steps=100)
    assert findings(trial, "input-drift", "extreme-batch") == []


def test_a_loss_that_fell_at_once_bears_inputs_of_any_scale(tmp_path: Path) -> None:
    model, x = nn.Linear(1, 1), torch.arange(1.0, 21.0)[:, None]
    optimizer = torch.optim.SGD(model.parameters(), 0.004)
    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), lambda _: (x, 0.5 * x), steps=80,
                   optimizer=optimizer)  # fmt: skip
    assert [level for level in levels(trial, "input-scale") if level != "info"] == []


def test_one_hot_letters_have_the_same_sums_in_every_batch(tmp_path: Path) -> None:
    model = mlp(60, 16, 4)

    def data(number: int) -> Batch:
        letters = torch.randint(12, (32, 5), generator=torch.Generator().manual_seed(number))
        return F.one_hot(letters, 12).float().flatten(1), letters[:, 0] % 4

    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), data, steps=30)
    assert findings(trial, "repeated-batch") == []
