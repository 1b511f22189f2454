"""Weights that change once in many steps, and those that change as often as is usual."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from support.short_runs import blob_batches, findings, mlp, only, record


@pytest.mark.parametrize(("batches", "recorded", "told"), [(20, 1, True), (20, 3, True), (4, 1, False), (1, 1, False)])
def test_updates_after_many_batches(tmp_path: Path, batches: int, recorded: int, told: bool) -> None:
    model, number = mlp(8, 16, 4), count(1)

    def train(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        (loss / batches).backward()
        if next(number) % batches == 0:
            optimizer.step()
            optimizer.zero_grad()

    trial = record(
        tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, train=train, steps=70, every=recorded
    )
    found = findings(trial, "rare-updates", "accumulated-gradients")
    assert [finding.rule for finding in found] == ["rare-updates"] * told
    assert all("only once in about" in finding.summary for finding in found)


@pytest.mark.parametrize(("beta1", "words"), [(0.999, "the last 1000 steps"), (0.9, "")])
def test_a_mean_over_too_many_gradients(tmp_path: Path, beta1: float, words: str) -> None:
    model = mlp(8, 16, 4)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, betas=(beta1, 0.999))
    trial = record(
        tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, optimizer=optimizer, steps=5
    )
    if words:
        assert words in only(trial, "optimizer-settings").summary
    else:
        assert findings(trial, "optimizer-settings") == []
