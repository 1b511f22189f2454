"""Gradients that are changed between the backward pass and the optimizer, and those that are merely clipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from support.short_runs import blob_batches, findings, mlp, record


class _Turned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return -gradient


@pytest.mark.parametrize("how", ["noise", "clipped", "as it is"])
def test_noise_in_gradients(tmp_path: Path, how: str) -> None:
    model = mlp(8, 32, 4)

    def train(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        loss.backward()
        for parameter in model.parameters() if how == "noise" else ():
            assert parameter.grad is not None
            parameter.grad.add_(50 * parameter.grad.std() * torch.randn_like(parameter))
        if how == "clipped":
            nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        optimizer.step()

    trial = record(
        tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, train=train, steps=24, every=2
    )
    found = findings(trial, "altered-gradients", "accumulated-gradients")
    assert [(finding.rule, finding.level) for finding in found] == [("altered-gradients", "info")] * (how == "noise")
    assert all("drowned in noise" in finding.summary for finding in found)


@pytest.mark.parametrize("turned", [True, False])
def test_a_sign_that_is_turned(tmp_path: Path, turned: bool) -> None:
    model = mlp(8, 32, 32, 4)
    if turned:
        forward = model[2].forward
        model[2].forward = lambda x: _Turned.apply(forward(x))
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, steps=12)
    found = findings(trial, "altered-gradients")
    assert [finding.node for finding in found] == ["model.2.bias"] * turned
    assert all("are the opposite" in finding.summary for finding in found)
