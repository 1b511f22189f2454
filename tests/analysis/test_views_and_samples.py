"""Views that are the same, classes with a handful of samples, whole graphs in each step; and their look-alikes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Recorder
from stepscope.store import open_trial
from support.short_runs import Batch, blob_batches, curve_batches, findings, mlp, record


def contrast(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    alike = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T / 0.2
    return F.cross_entropy(alike, torch.arange(len(alike)))


@pytest.mark.parametrize(
    ("way", "found"), [("same", ["warning"]), ("noise", []), ("dropout", []), ("two losses", []), ("no gradient", [])]
)
def test_views_that_are_the_same(way: str, found: list[str], tmp_path: Path) -> None:
    dropout = [nn.Dropout(0.3)] if way == "dropout" else []
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), *dropout, nn.Linear(16, 4))

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if way == "two losses":
            return F.cross_entropy(model(x), y) + 1e-3 * F.mse_loss(model(x), torch.zeros(len(x), 4))
        second = x + 0.3 * torch.randn_like(x) if way == "noise" else x.clone()
        one, two = model(x), model(second)
        return contrast(one, two.detach() if way == "no gradient" else two)

    trial = record(tmp_path, model, loss_of, blob_batches, steps=8)
    expected = ["warning"] if way == "no gradient" else found  # a target that is the same view is no better
    assert [finding.level for finding in findings(trial, "identical-views")] == expected


def train_and_validate(folder: Path, classes: int, samples: int, *, whole: bool) -> list[str]:
    """Random labels of so many classes for so many samples, all of them in each step or a part, and unseen ones."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(samples, 8, generator=generator), torch.randint(classes, (samples,), generator=generator)
    unseen = torch.randn(64, 8, generator=generator), torch.randint(classes, (64,), generator=generator)
    model = mlp(8, 64, classes)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with Recorder(folder, trial="t", schedule={"*": 1}, strict=True) as recorder:
        recorder.watch(model, optimizer)
        for number in range(90):
            rows = torch.arange(samples) if whole else torch.randperm(samples, generator=generator)[:64]
            with recorder.step("train"):
                optimizer.zero_grad()
                F.cross_entropy(model(x[rows]), y[rows]).backward()
                optimizer.step()
            if number % 30 == 29:
                with torch.no_grad(), recorder.step("validation"):
                    F.cross_entropy(model(unseen[0]), unseen[1])
    return [finding.level for finding in findings(open_trial(folder / "t"), "too-many-classes")]


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(("classes", "samples", "found"), [(100, 200, ["warning"]), (10, 40, []), (24, 4000, [])])
def test_classes_of_a_handful_of_samples(
    classes: int, samples: int, found: list[str], whole: bool, tmp_path: Path
) -> None:
    assert train_and_validate(tmp_path, classes, samples, whole=whole) == found


def graph(tmp_path: Path, rule: str, *, whole: bool) -> list[str]:
    """Nodes of a graph with their neighbours, all of it in each step; only some of them are asked for."""
    generator = torch.Generator().manual_seed(1)
    x, near = torch.randn(60, 12, generator=generator), 1e-3 * (torch.rand(60, 60, generator=generator) < 0.2)
    x[3] = x[2] + 0.01  # two of the kept samples
    y = (x[:, 0] > 0).long()
    layer, head = nn.Linear(12, 16), nn.Linear(16, 2)
    model = nn.Module()
    model.layer, model.head = layer, head
    model.forward = lambda x, near: head(near @ layer(x).relu())  # type: ignore[method-assign]
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    with Recorder(tmp_path, trial="t", schedule={"*": 1}, strict=True) as recorder:
        recorder.watch(model, optimizer)
        for number in range(24):
            rows = torch.arange(40) if number % 4 else torch.arange(40, 60)
            seen = x if whole else x + 0.001 * number
            with recorder.step("train" if number % 4 else "validation"):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(seen, near)[rows], y[rows])
                if number % 4:
                    loss.backward()
                    optimizer.step()
    return [finding.node for finding in findings(open_trial(tmp_path / "t"), rule)]


def test_a_whole_graph_in_each_step_is_no_leak(tmp_path: Path) -> None:
    assert graph(tmp_path, "duplicate-samples", whole=True) == []


def test_who_is_near_whom_needs_no_normalisation(tmp_path: Path) -> None:
    assert graph(tmp_path, "input-scale", whole=True) == []


@pytest.mark.parametrize(("held", "found"), [(True, ["warning"]), (False, [])])
def test_a_cell_that_begins_from_the_same_state_at_each_word(held: bool, found: list[str], tmp_path: Path) -> None:
    encoder, cell, out = nn.Linear(4, 8), nn.GRUCell(4, 8), nn.Linear(8, 1)
    model = nn.ModuleList([encoder, cell, out])

    def loss_of(x: torch.Tensor) -> torch.Tensor:
        start = h = encoder(x[:, 0]).tanh()
        outputs = []
        for moment in x.unbind(1):
            h = cell(moment, start if held else h)
            outputs.append(out(h))
        return torch.stack(outputs, 1).square().mean()

    def data(number: int) -> Batch:
        return (torch.randn(16, 5, 4, generator=torch.Generator().manual_seed(number)),)

    trial = record(tmp_path, model, loss_of, data, steps=6)
    assert [finding.level for finding in findings(trial, "forgetful-recurrence")] == found


@pytest.mark.parametrize("clipped", [True, False])
def test_gradients_that_grew_and_were_not_clipped_are_told_with_what_broke(clipped: bool, tmp_path: Path) -> None:
    model = mlp(8, 16, 4)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def data(number: int) -> Batch:
        x, y = blob_batches(number)
        return x * (1e3 if number == 12 else 1e30 if number == 16 else 1), y

    def train(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        loss.backward()
        if clipped:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    trial = record(
        tmp_path, model, lambda x, y: F.cross_entropy(model(x).square(), y), data, steps=20,
        optimizer=optimizer, train=train,
    )  # fmt: skip
    found = findings(trial, "non-finite")
    assert ["clipped them" in finding.summary for finding in found] == [not clipped]


@pytest.mark.parametrize("way", ["all pairs", "matching pairs", "a constant answer"])
def test_a_row_and_a_column_that_were_made_on_the_way(way: str, tmp_path: Path) -> None:
    model = mlp(6, 16, 1)
    if way == "a constant answer":
        nn.init.zeros_(model[2].weight)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        prediction, target = model(x)[:, 0], y[:, 0]
        if way == "all pairs":
            return (prediction.reshape(-1, 1) - target.reshape(1, -1)).square().mean()
        return (prediction - target).square().mean()

    found = findings(record(tmp_path, model, loss_of, curve_batches, steps=12, lr=1e-4), "broadcast-target")
    assert [finding.level for finding in found] == (["error"] if way == "all pairs" else [])


@pytest.mark.parametrize("seed", [4, 5])
def test_noise_in_the_gradient_of_a_single_number_is_carried_on_by_chance_only(seed: int, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 1))
    noise = torch.Generator().manual_seed(seed)

    def train(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        loss.backward()
        for parameter in model.parameters():
            assert parameter.grad is not None
            size = parameter.grad.square().mean().sqrt()
            parameter.grad.add_(100 * size * torch.randn(parameter.shape, generator=noise))
        optimizer.step()

    trial = record(
        tmp_path, model, lambda x, y: F.mse_loss(model(x), y[:, :1]), curve_batches, steps=90, every=2, train=train
    )
    assert findings(trial, "accumulated-gradients") == []
