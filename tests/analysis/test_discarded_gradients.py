"""Gradients of small batches that are cleared before the optimizer steps, closures that never clear; look-alikes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Recorder
from stepscope.store import Trial, open_trial
from support.short_runs import blobs, findings, mlp

WRONG = ("cleared", "cleared by hand", "cleared, calls", "cleared, clipped")


def accumulated(folder: Path, way: str) -> Trial:
    """Four small batches make a step."""
    model = (
        mlp(8, 16, 4) if "convolution" not in way else nn.Sequential(nn.Conv1d(1, 3, 3), nn.Flatten(), nn.Linear(18, 4))
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Recorder(folder, trial="t", schedule=1, strict=True) as recorder:
        recorder.watch(model, optimizer)
        for number in range(10):
            with recorder.step() as step:
                optimizer.zero_grad()
                for part in range(4):
                    x, y = blobs(seed=0 if way == "same batch" else 4 * number + part)
                    if way == "cleared by hand":
                        for parameter in model.parameters():
                            parameter.grad = None
                    elif "cleared" in way:
                        optimizer.zero_grad()
                    if way in ("cleared, calls", "right, calls"):
                        (F.cross_entropy(model(x), y) / 4).backward()
                    else:
                        with step.iteration():
                            (F.cross_entropy(model(x[:, None] if "convolution" in way else x), y) / 4).backward()
                    if way == "step each":
                        optimizer.step()
                        optimizer.zero_grad()
                if "clipped" in way:
                    nn.utils.clip_grad_norm_(model.parameters(), 0.01)
                optimizer.step()
    return open_trial(folder / "t")


@pytest.mark.parametrize(
    "way", [*WRONG, "cleared, convolution", "right", "right, calls", "right, clipped", "same batch", "step each"]
)
def test_small_batches_that_are_cleared(way: str, tmp_path: Path) -> None:
    found = findings(accumulated(tmp_path, way), "discarded-gradients")
    assert [finding.level for finding in found] == (["error"] if "cleared" in way else [])


def test_a_sharpness_aware_step_uses_its_second_gradient(tmp_path: Path) -> None:
    model = mlp(8, 16, 4)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Recorder(tmp_path, trial="t", schedule=1, strict=True) as recorder:
        recorder.watch(model, optimizer)
        for number in range(10):
            x, y = blobs(seed=number)
            with recorder.step():
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                moves = [(p, 0.05 * p.grad.sign()) for p in model.parameters() if p.grad is not None]
                with torch.no_grad():
                    for parameter, move in moves:
                        parameter.add_(move)
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                with torch.no_grad():
                    for parameter, move in moves:
                        parameter.sub_(move)
                optimizer.step()
    assert findings(open_trial(tmp_path / "t"), "discarded-gradients") == []


@pytest.mark.parametrize("way", ["never cleared", "right", "two small batches"])
def test_the_closure_of_lbfgs(way: str, tmp_path: Path) -> None:
    model = mlp(8, 16, 4)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4)
    x, y = blobs()

    def closure() -> torch.Tensor:
        if way != "never cleared":
            optimizer.zero_grad()
        halves = [(x[:16], y[:16]), (x[16:], y[16:])] if way == "two small batches" else [(x, y)]
        losses = [F.cross_entropy(model(part), wanted) for part, wanted in halves]
        for loss in losses:
            loss.backward()
        return torch.stack(losses).sum().detach()

    with Recorder(tmp_path, trial="t", schedule=1, strict=True) as recorder:
        recorder.watch(model, optimizer)
        for _ in range(8):
            with recorder.step():
                optimizer.step(closure)
    found = findings(open_trial(tmp_path / "t"), "discarded-gradients")
    assert [finding.level for finding in found] == (["error"] if way == "never cleared" else [])
