"""Seeds that are set in every step, and gradients that are clipped before there are any; and look-alikes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Recorder
from stepscope.recorder.random_state import random_state
from stepscope.store import Trial, open_trial
from support.short_runs import blobs, findings, mlp


def trained(folder: Path, way: str) -> Trial:
    """Twelve steps with noise on the inputs, some of them with a dropout instead."""
    model: nn.Module = mlp(8, 16, 4)
    if "dropout" in way:
        model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.3), nn.Linear(16, 4))
    optimizer, generator = torch.optim.SGD(model.parameters(), 0.1), torch.Generator()
    with Recorder(folder, trial="t", schedule=1, strict=True) as recorder:
        recorder.watch(model, optimizer)
        for number in range(12):
            x, y = blobs(seed=number)
            if "before" in way:
                torch.manual_seed(1)
            with recorder.step():
                if "within" in way:
                    torch.manual_seed(1)
                if "quiet" not in way and "dropout" not in way:
                    x = x + 0.1 * torch.randn(x.shape, generator=generator if way == "own" else None)
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
            if "evaluated" in way:
                with torch.random.fork_rng():
                    torch.manual_seed(1)
                    torch.randn(3)
    return open_trial(folder / "t")


@pytest.mark.parametrize(
    "way",
    ["before", "within", "within, dropout", "before, dropout", "", "dropout", "before, quiet", "evaluated", "own"],
)
def test_a_seed_in_every_step(way: str, tmp_path: Path) -> None:
    found = findings(trained(tmp_path, way), "repeated-randomness")
    wrong = way in ("before", "within", "within, dropout", "before, dropout")
    assert [finding.level for finding in found] == ["warning"] * wrong


def test_the_state_tells_what_is_drawn_next() -> None:
    torch.manual_seed(3)
    first = random_state()
    assert random_state() == first
    torch.rand(1)
    assert random_state() != first
    torch.manual_seed(3)
    assert random_state() == first


def clipped(folder: Path, way: str) -> Trial:
    model = mlp(8, 16, 4)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def clip() -> None:
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)

    with Recorder(folder, trial="t", schedule=1, strict=True) as recorder:
        recorder.watch(model, optimizer)
        for number in range(8):
            x, y = blobs(seed=number)
            with recorder.step():
                if "at the beginning" in way:
                    clip()
                    optimizer.step()
                if "measured" not in way:
                    optimizer.zero_grad()
                loss = F.cross_entropy(model(x), y)
                if "early" in way:
                    clip()
                loss.backward()
                if "late" in way:
                    clip()
                if "at the beginning" not in way:
                    optimizer.step()
                if "measured" in way:
                    optimizer.zero_grad()
    return open_trial(folder / "t")


@pytest.mark.parametrize("way", ["early", "early, measured", "late", "early and late", "at the beginning"])
def test_gradients_that_are_clipped_before_there_are_any(way: str, tmp_path: Path) -> None:
    found = findings(clipped(tmp_path, way), "early-clipping")
    assert [finding.level for finding in found] == (["warning"] if "early" in way and "late" not in way else [])
    assert all(finding.source is not None and "clip" in finding.source.text for finding in found)
