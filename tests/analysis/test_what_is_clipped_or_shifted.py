"""Losses that are clipped, penalties that weigh too much, CTC losses without targets, and shifted variances."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Every, Recorder
from stepscope.store import open_trial
from support.short_runs import Batch, blob_batches, blobs, curve, descend, findings, mlp, only, record


@pytest.mark.parametrize(("limit", "told"), [(0.5, True), (50.0, False)])
def test_losses_of_samples_that_are_clipped(limit: float, told: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(6, 16, 2)

    def data(number: int) -> Batch:
        x, y = curve(seed=number)
        return x, y + 6 * (x[:, :1] > 1)

    trial = record(
        tmp_path, model, lambda x, y: F.mse_loss(model(x), y, reduction="none").clamp(max=limit).mean(), data
    )  # fmt: skip
    found = findings(trial, "clipped-prediction")
    assert [(one.level, one.node, "clamp" in (one.source.text if one.source else "")) for one in found] == [
        ("warning", "mse_loss", True)
    ] * told


class _Coder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(6, 16), nn.Linear(16, 6)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        code = self.encode(x).relu()
        return self.decode(code), code


@pytest.mark.parametrize(("weight", "told"), [(1.0, True), (1e-3, False)])
def test_a_penalty_that_leaves_nothing(weight: float, told: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = _Coder()

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        rebuilt, code = model(x)
        return F.mse_loss(rebuilt, x) + weight * code.abs().sum(1).mean()

    trial = record(tmp_path, model, loss_of, lambda number: curve(seed=number), steps=100, every=2)
    assert ["penalty" in one.summary for one in findings(trial, "representation-collapse")] == [True] * told


@pytest.mark.parametrize(
    ("length", "taken", "words"),
    [(0, 12, "empty targets"), (4, 3, "shorter than their targets"), (4, 12, "")],
)
def test_what_a_ctc_loss_cannot_learn_from(length: int, taken: int, words: str, tmp_path: Path) -> None:
    model = nn.Linear(8, 6)
    lengths = torch.full((16,), length)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        frames = model(x).log_softmax(2).transpose(0, 1)
        return F.ctc_loss(frames, y, torch.full((16,), taken), lengths, zero_infinity=True)

    def data(number: int) -> Batch:
        generator = torch.Generator().manual_seed(number)
        return torch.randn(16, 12, 8, generator=generator), torch.randint(1, 6, (16, 4), generator=generator)

    found = findings(record(tmp_path, model, loss_of, data, steps=6), "ignored-targets")
    assert [(one.level, words in one.summary) for one in found] == [("error", True)] * bool(words)


@pytest.mark.parametrize(("rate", "told"), [(0.6, True), (0.0, False)])
def test_dropout_before_a_batch_normalisation(rate: float, told: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(rate), nn.Linear(6, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 2))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch(model, optimizer)
        for number in range(60):
            x, y = curve(seed=number)
            with recorder.step("train"):
                descend(F.mse_loss(model(x), y), optimizer)
            if number % 10 == 9:
                model.eval()
                with recorder.step("validation"), torch.no_grad():
                    model(x)
                model.train()
    found = findings(open_trial(tmp_path / "trial"), "variance-shift")
    assert [(one.level, one.node, one.nodes) for one in found] == [("warning", "model.2", ("model.0",))] * told


@pytest.mark.parametrize(("scale", "told"), [(5.0, True), (1.0, False)])
def test_frozen_statistics_that_do_not_fit_the_data(scale: float, told: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU())
    for number in range(100):
        body(blobs(seed=1000 + number)[0])
    body.requires_grad_(False).eval()
    head = nn.Linear(32, 4)
    model = nn.Sequential(body, head)

    def data(number: int) -> Batch:
        points, labels = blobs(seed=number)
        return scale * points, labels

    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), data, lr=1e-3, steps=20)
    assert [(one.level, one.node) for one in findings(trial, "variance-shift")] == [("info", "model.0.1")] * told


@pytest.mark.parametrize(("mean", "told"), [(4.0, True), (0.0, False)])
def test_an_input_with_an_offset_into_a_frozen_net(mean: float, told: bool, tmp_path: Path) -> None:
    model = mlp(8, 32, 4)
    model[0].requires_grad_(False)

    def data(number: int) -> Batch:
        points, labels = blobs(seed=number)
        return points + mean, labels

    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), data, lr=1e-3, steps=12)
    assert any("not centred" in one.summary for one in findings(trial, "pretrained-input")) == told


@pytest.mark.parametrize("sees", [True, False])
def test_levels_of_grey_that_are_told_from_themselves(sees: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 16, 1), nn.ReLU(), nn.Conv2d(16, 4, 1))

    def data(number: int) -> Batch:
        return (torch.randint(4, (16, 6, 6), generator=torch.Generator().manual_seed(number)),)

    def loss_of(levels: torch.Tensor) -> torch.Tensor:
        shown = levels if sees else levels.roll(1, 2)
        return F.cross_entropy(model(shown[:, None] / 1.5 - 1), levels)

    trial = record(tmp_path, model, loss_of, data, lr=0.05, steps=150, every=3)
    assert ["in other units" in one.summary for one in findings(trial, "targets-equal-inputs")] == [True] * sees


def test_units_are_dead_that_are_so_in_all_calls(tmp_path: Path) -> None:
    """The halves of a layer that are open for one of its two inputs only are alive."""

    class Twice(nn.Module):
        def __init__(self, *, shut: float) -> None:
            super().__init__()
            self.layer, self.relu, self.head = nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)
            with torch.no_grad():
                self.layer.weight.mul_(0.01)
                self.layer.weight[:, 0] = torch.tensor([1.0, -1.0]).repeat(8)
                self.layer.bias.fill_(-shut)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            one, other = (self.relu(self.layer(F.pad(x[:, 1:], (1, 0), value=side))) for side in (3.0, -3.0))
            return self.head(one + other)

    for shut, told in ((0.5, 0), (20.0, 1)):
        torch.manual_seed(0)
        model = Twice(shut=shut)
        optimizer = torch.optim.Adam(model.head.parameters(), 1e-2)
        trial = record(
            tmp_path / str(told), model, lambda x, y, net=model: F.cross_entropy(net(x), y), blob_batches,
            optimizer=optimizer, steps=20,
        )  # fmt: skip
        assert len(findings(trial, "dead-units")) == told


def test_a_triplet_loss_that_draws_all_codes_together(tmp_path: Path) -> None:
    """The mask of all pairs but those of a sample with itself is no target."""
    torch.manual_seed(0)
    model = mlp(8, 32, 8)

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        codes, others = model(x), model(x + 2 * noise)
        distance = torch.cdist(codes, others)
        nearest = distance[~torch.eye(len(x), dtype=torch.bool)].view(len(x), -1).amin(1)
        return F.relu(distance.diagonal() - nearest + 1).mean()

    trial = record(tmp_path, model, loss_of, blob_batches, steps=150, every=3)
    assert only(trial, "representation-collapse").node == "model"
    assert findings(trial, "unrelated-targets") == []


def test_a_rate_at_which_a_net_blows_up_late(tmp_path: Path) -> None:
    """The first steps are as usual."""
    torch.manual_seed(0)
    model = mlp(6, 32, 32, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)

    def train(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        descend(loss, optimizer)
        optimizer.param_groups[0]["lr"] *= 1.15

    trial = record(
        tmp_path, model, lambda x, y: F.mse_loss(model(x), y), lambda number: curve(seed=number),
        optimizer=optimizer, steps=60, train=train,
    )  # fmt: skip
    (finding,) = findings(trial, "learning-rate")
    assert "too high" in finding.summary and "up to" in finding.summary
