"""Clipping that is always active: on runs that have it, and on look-alikes that have not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.analysis import Finding
from stepscope.store import Trial
from support.short_runs import curve_batches, findings, mlp, record

Change = Callable[[list[nn.Parameter]], object]


def train_with(folder: Path, change: Change, **options: Any) -> Trial:
    """Train, and change the gradients before each step of the optimizer."""
    torch.manual_seed(0)
    model = mlp(6, 16, 16, 2, activation=nn.Tanh)
    parameters = list(model.parameters())

    def train(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        (loss * options.get("scale", 1.0)).backward()
        change(parameters)
        optimizer.step()

    optimizer = torch.optim.SGD(parameters, lr=options.get("lr", 0.1))
    loss = options.get("loss", lambda x, y: F.mse_loss(model(x), y))
    return record(folder, model, loss, curve_batches, optimizer=optimizer, train=train, steps=options.get("steps", 30))


def found(trial: Trial) -> list[Finding]:
    return findings(trial, "constant-clipping")


def norm(bound: float) -> Change:
    return lambda parameters: nn.utils.clip_grad_norm_(parameters, bound)


def value(bound: float) -> Change:
    return lambda parameters: nn.utils.clip_grad_value_(parameters, bound)


def divided(parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        assert parameter.grad is not None
        parameter.grad /= 8


def divided_by_tokens(parameters: list[nn.Parameter]) -> None:
    """By a number that differs from step to step."""
    tokens = int(torch.randint(20, 60, ()))
    for parameter in parameters:
        assert parameter.grad is not None
        parameter.grad /= tokens


@pytest.mark.parametrize(("change", "words"), [(norm(0.01), "norm of 0.01"), (value(1e-3), "at most 0.001")])
def test_clipping_that_is_always_active(change: Change, words: str, tmp_path: Path) -> None:
    (finding,) = found(train_with(tmp_path, change))
    assert words in finding.summary and "30 of 30 recorded steps" in finding.summary
    assert finding.level == "warning", "the loss hardly falls"
    assert [shown.quantity for shown in finding.evidence] == ["gradient before clipping", "gradient"]
    assert finding.node.startswith("model.")


def test_it_is_no_alarm_where_the_loss_falls(tmp_path: Path) -> None:
    (finding,) = found(train_with(tmp_path, norm(0.05), lr=5.0, steps=40))
    assert finding.level == "info"


LOOK_ALIKES: dict[str, tuple[Change, dict[str, Any]]] = {
    "no clipping": (lambda parameters: None, {}),
    "a bound that is never reached": (norm(1e3), {}),
    "a bound near the usual norm": (norm(0.5), {}),
    "a bound for spikes": (value(0.5), {}),
    "averaged over devices": (divided, {}),
    "averaged over tokens": (divided_by_tokens, {}),
    "a warm-up": (norm(0.01), {"steps": 10}),
}


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_look_alikes(name: str, tmp_path: Path) -> None:
    change, options = LOOK_ALIKES[name]
    assert found(train_with(tmp_path, change, **options)) == []


def test_clipping_before_unscaling_is_found(tmp_path: Path) -> None:
    """The bound then works on scaled gradients, and hardly anything is left of them."""
    torch.manual_seed(0)
    model = mlp(6, 16, 2, activation=nn.Tanh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)

    def train(loss: torch.Tensor, given: torch.optim.Optimizer) -> None:
        given.zero_grad()
        scaler.scale(loss).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # scaler.unscale_ should have come first
        scaler.step(given)
        scaler.update()

    trial = record(
        tmp_path, model, lambda x, y: F.mse_loss(model(x), y), curve_batches, optimizer=optimizer, train=train, steps=24
    )
    (finding,) = found(trial)
    assert "24 of 24" in finding.summary


@pytest.mark.parametrize(("change", "told"), [(norm(1e-3), True), (divided, False)])
def test_gradients_that_stay_the_same(change: Change, told: bool, tmp_path: Path) -> None:
    """Of one batch and steps that lead nowhere: what they are divided by is the same number in each of them."""
    torch.manual_seed(0)
    model = mlp(6, 16, 2)
    x, y = curve_batches(0)

    def train(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        loss.backward()
        change(list(model.parameters()))
        optimizer.step()

    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    trial = record(
        tmp_path, model, lambda *_: 1e4 * F.mse_loss(model(x), y), optimizer=optimizer, train=train, steps=30
    )  # fmt: skip
    assert ["a norm of 0.001 " in finding.summary for finding in found(trial)] == [True] * told
