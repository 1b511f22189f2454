"""Numbers that mean something else from a step on, or in another kind of step; and look-alikes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Recorder
from stepscope.store import Trial, open_trial
from support.short_runs import Batch, findings, mlp, record

STEPS, CHANGE = 70, 40
CENTRES = 3 * torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
ORDER = torch.tensor([3, 5, 0, 1, 2, 4])


def classes(number: int) -> Batch:
    generator = torch.Generator().manual_seed(number)
    y = torch.randint(6, (48,), generator=generator)
    return CENTRES[y] + 0.3 * torch.randn(48, 8, generator=generator), y


@pytest.mark.parametrize("way", ["renumbered", "off by one", "noisier", "right"])
def test_classes_that_are_numbered_otherwise(way: str, tmp_path: Path) -> None:
    model = mlp(8, 32, 6)

    def batches(number: int) -> Batch:
        x, y = classes(number)
        if number < CHANGE or way == "right":
            return x, y
        if way == "noisier":  # labels are wrong at random
            return x, torch.where(torch.rand(48) < 0.5, torch.randint(6, (48,)), y)
        return x, ORDER[y] if way == "renumbered" else (y + 1) % 6

    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), batches, steps=STEPS)
    found = findings(trial, "meaning-shift")
    expected = [("warning", CHANGE, "target")] if way in ("renumbered", "off by one") else []
    assert [(finding.level, finding.step, finding.node) for finding in found] == expected


def table(number: int) -> Batch:
    x = torch.randn(48, 6, generator=torch.Generator().manual_seed(number))
    x = torch.cat([x[:, :3], x[:, 3:].sign()], dim=1)
    return x, x[:, 0] + x[:, 1] * x[:, 4]


@pytest.mark.parametrize("way", ["columns", "harder", "right"])
def test_columns_in_another_order(way: str, tmp_path: Path) -> None:
    model = mlp(6, 48, 1)

    def batches(number: int) -> Batch:
        x, y = table(number)
        if number >= CHANGE and way == "columns":
            return x[:, [5, 0, 4, 1, 3, 2]], y
        return x, 3 * y if number >= CHANGE and way == "harder" else y

    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x)[:, 0], y), batches, steps=STEPS, every=1)
    found = findings(trial, "meaning-shift")
    assert [finding.node for finding in found] == (["input"] if way == "columns" else [])
    assert all(finding.step in (CHANGE, CHANGE + 1) for finding in found)  # one noisy batch more or less


@pytest.mark.parametrize("way", ["renumbered", "right"])
def test_words_that_are_numbered_otherwise(way: str, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Embedding(20, 16), nn.Linear(16, 20))
    order = torch.randperm(20, generator=torch.Generator().manual_seed(5))

    def texts(number: int) -> Batch:
        generator = torch.Generator().manual_seed(number)
        first = (torch.rand(32, 1, generator=generator) ** 3 * 10).long()
        tokens = (first + torch.arange(9)) % 20
        tokens = order[tokens] if number >= CHANGE and way == "renumbered" else tokens
        return tokens[:, :-1], tokens[:, 1:]

    trial = record(
        tmp_path,
        model,
        lambda x, y: F.cross_entropy(model(x).flatten(0, 1), y.flatten()),
        texts,
        steps=STEPS,
        every=1,
        lr=3e-2,
    )
    found = findings(trial, "meaning-shift")
    assert [finding.step for finding in found] == ([CHANGE] if way == "renumbered" else [])


def evaluated(folder: Path, model: nn.Module, data: Any, changed: Any) -> Trial:
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with Recorder(folder, trial="t", schedule={"*": 1}, strict=True) as recorder:
        recorder.watch(model, optimizer)
        for number in range(16):
            x, y = data(number)
            with recorder.step("train"):
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
            if number % 4 == 3:
                x, y = data(100 + number)
                with torch.no_grad(), recorder.step("validation") as step:
                    step.record("loss", F.cross_entropy(model(changed(x)), y), type="loss")
    return open_trial(folder / "t")


def photos(number: int) -> Batch:
    generator = torch.Generator().manual_seed(number)
    light = torch.tensor([0.6, 0.2, -0.4])[:, None, None]
    return light + 0.3 * torch.randn(24, 3, 8, 8, generator=generator), torch.arange(24) % 3


CHANGES = {
    "blue first": lambda x: x.flip(1),
    "turned round": lambda x: x[:, [1, 2, 0]],
    "the same": lambda x: x,
    "darker": lambda x: x - 0.5,
    "mirrored": lambda x: x.flip(3),
    "grey": lambda x: x.mean(1, keepdim=True).expand_as(x),
}


@pytest.mark.parametrize("way", CHANGES)
def test_channels_in_another_order_where_the_net_is_evaluated(way: str, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    found = findings(evaluated(tmp_path, model, photos, CHANGES[way]), "channel-order")
    assert [finding.level for finding in found] == (["warning"] if way in ("blue first", "turned round") else [])


@pytest.mark.parametrize("swapped", [True, False])
def test_columns_in_another_order_where_the_net_is_evaluated(swapped: bool, tmp_path: Path) -> None:
    offset = torch.tensor([0.0, 4.0, -3.0, 1.5])

    def rows(number: int) -> Batch:
        x = torch.randn(64, 4, generator=torch.Generator().manual_seed(number))
        return x + offset, (x[:, 0] > 0).long()

    trial = evaluated(tmp_path, mlp(4, 8, 2), rows, lambda x: x[:, [0, 2, 1, 3]] if swapped else x)
    assert len(findings(trial, "channel-order")) == swapped
