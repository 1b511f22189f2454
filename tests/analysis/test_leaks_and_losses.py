"""Targets that leak into some samples, sizes that a normalisation takes away, collapses midway; look-alikes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Recorder
from stepscope.store import open_trial
from support.short_runs import Batch, findings, mlp, record


def series(number: int, way: str, *, unseen: bool = False) -> Batch:
    """Windows of a wandering series with gaps, and what follows."""
    generator = torch.Generator().manual_seed(number)
    wave = torch.randn(32, 9, generator=generator).cumsum(1)
    if way == "in stairs":
        wave = wave.round()
    x, y = wave[:, :-1].clone(), wave[:, -1]
    gaps = torch.rand(32, generator=generator) < 0.5
    if (way == "filled back" and not unseen) or way == "filled back everywhere":
        x[gaps, -1] = y[gaps]
    else:
        x[gaps, -1] = x[gaps, -2]
    return x, y


@pytest.mark.parametrize("way", ["filled back", "filled back everywhere", "filled forth", "in stairs"])
def test_gaps_that_are_filled_with_what_follows(way: str, tmp_path: Path) -> None:
    model = mlp(8, 16, 1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with Recorder(tmp_path, trial="t", schedule={"*": 1}, strict=True) as recorder:
        recorder.watch(model, optimizer)
        for number in range(24):
            x, y = series(number, way)
            with recorder.step("train"):
                optimizer.zero_grad()
                F.mse_loss(model(x)[:, 0], y).backward()
                optimizer.step()
            if number % 4 == 3:
                x, y = series(100 + number, way, unseen=True)
                with torch.no_grad(), recorder.step("validation"):
                    F.mse_loss(model(x)[:, 0], y)
    found = findings(open_trial(tmp_path / "t"), "partial-leak")
    assert [finding.level for finding in found] == ["warning"] * (way == "filled back")


ENTRANCES = {
    "instance": lambda: nn.InstanceNorm1d(1),
    "layer": lambda: nn.LayerNorm(32),
    "group": lambda: nn.GroupNorm(1, 1),
    "batch": lambda: nn.BatchNorm1d(1),
    "none": lambda: nn.Identity(),
}


@pytest.mark.parametrize("asked", ["volume", "pitch"])
@pytest.mark.parametrize("entrance", ENTRANCES)
def test_a_size_that_is_normalised_away(entrance: str, asked: str, tmp_path: Path) -> None:
    model = nn.Sequential(ENTRANCES[entrance](), nn.Conv1d(1, 4, 5), nn.ReLU(), nn.Flatten(), nn.Linear(112, 1))

    def sounds(number: int) -> Batch:
        generator = torch.Generator().manual_seed(number)
        volume, pitch = 3 * torch.rand(2, 32, 1, generator=generator)
        wave = volume * ((1 + pitch) * torch.arange(32) / 3).sin()
        return wave[:, None], volume if asked == "volume" else pitch

    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), sounds, steps=16)
    wrong = asked == "volume" and entrance in ("instance", "layer", "group")
    assert [finding.node for finding in findings(trial, "lost-scale")] == ["model.0"] * wrong


@pytest.mark.parametrize("way", ["midway", "never"])
def test_a_representation_that_collapses_midway(way: str, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 8))

    def rows(number: int) -> tuple[torch.Tensor, ...]:
        return torch.randn(32, 8, generator=torch.Generator().manual_seed(number)), torch.tensor(number >= 40)

    def loss_of(x: torch.Tensor, late: torch.Tensor) -> torch.Tensor:
        codes = F.normalize(model(x), dim=1)
        near = F.normalize(model(x + 0.1 * torch.randn_like(x)), dim=1)
        other = (codes * near.roll(1, 0)).sum(1)
        sign = -1 if late and way == "midway" else 1
        return F.relu(1 - (codes * near).sum(1) + sign * other + 0.5).mean()

    trial = record(tmp_path, model, loss_of, rows, steps=130, lr=1e-2)
    found = findings(trial, "representation-collapse")
    assert [finding.level for finding in found] == ["error"] * (way == "midway")
    assert all(finding.step is not None and 40 <= finding.step < 80 for finding in found)


@pytest.mark.parametrize("way", ["alone", "with its target", "by all", "without a level", "waves"])
def test_windows_that_are_each_standardised(way: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(8, 32, 1)

    def windows(number: int) -> Batch:
        generator = torch.Generator().manual_seed(number)
        phase, level = torch.rand(2, 48, 1, generator=generator)
        wave = 3 * (6 * level - 3) + (torch.arange(9) + 9 * phase).sin()
        if way == "waves":  # the level is among what comes in
            return wave[:, :8] / 5, wave[:, 8:] / 5
        if way == "without a level":
            wave = wave - 3 * (6 * level - 3)
        window, following = wave[:, :8], wave[:, 8:]
        mean, size = window.mean(1, keepdim=True), window.std(1, keepdim=True)
        if way == "by all":
            return window / 5, following / 5
        return (window - mean) / size, (following - mean) / size if way == "with its target" else following

    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), windows, steps=48, lr=1e-2)
    assert [finding.node for finding in findings(trial, "lost-level")] == ["input"] * (way == "alone")
