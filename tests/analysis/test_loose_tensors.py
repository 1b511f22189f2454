"""The rule ``unregistered-parameters`` on tensors that require a gradient and are no parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder.loose_tensors import holder_of
from support.short_runs import Batch, findings, record


class Scaled(nn.Module):
    """Has a tensor where others have a parameter: by itself, in a list, in a dict."""

    def __init__(self, kept: str) -> None:
        super().__init__()
        self.enter, self.kept = nn.Linear(6, 4), kept
        scale: Any = torch.rand(4, requires_grad=True)
        self.scale: Any = {"list": [scale], "dict": {"scale": scale}, "parameter": nn.Parameter(scale.detach())}.get(
            kept, scale
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        key: Any = {"list": 0, "dict": "scale"}.get(self.kept)
        return self.enter(x) * (self.scale if key is None else self.scale[key])


def data(number: int) -> Batch:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(16, 6, generator=generator), torch.randint(4, (16,), generator=generator)


def told(folder: Path, model: nn.Module, loss_of: Any = None, **options: Any) -> list[tuple[str, str]]:
    trial = record(folder, model, loss_of or (lambda x, y: F.cross_entropy(model(x), y)), data, steps=5, **options)
    return [(found.level, found.node) for found in findings(trial, "unregistered-parameters")]


@pytest.mark.parametrize("kept", ["itself", "list", "dict"])
def test_a_tensor_in_place_of_a_parameter_is_told(kept: str, tmp_path: Path) -> None:
    assert told(tmp_path, Scaled(kept)) == [("error", "model")]


def test_a_tensor_that_no_module_keeps_is_worth_knowing(tmp_path: Path) -> None:
    model, temperature = nn.Linear(6, 4), torch.tensor(0.5, requires_grad=True)
    found = told(tmp_path, model, lambda x, y: F.cross_entropy(model(x) / temperature, y))
    assert found == [("info", "loss")]


def test_a_parameter_is_right(tmp_path: Path) -> None:
    assert told(tmp_path, Scaled("parameter")) == []


def test_a_tensor_that_an_optimizer_holds_is_right(tmp_path: Path) -> None:
    model = Scaled("itself")
    assert told(tmp_path, model, optimizer=torch.optim.SGD([*model.parameters(), model.scale], 0.1)) == []


def test_a_tensor_that_is_trained_by_hand_is_right(tmp_path: Path) -> None:
    model = Scaled("itself")

    def train(loss: torch.Tensor, optimizer: Any) -> None:
        loss.backward()
        model.scale.data -= 0.1 * model.scale.grad
        optimizer.step()

    assert told(tmp_path, model, train=train) == []


def test_data_that_gradients_are_asked_for_is_right(tmp_path: Path) -> None:
    model, nudge = nn.Linear(6, 4), torch.ones(16, 6, requires_grad=True)
    assert told(tmp_path, model, lambda x, y: F.cross_entropy(model(x + nudge), y)) == []


def test_the_holder_is_the_module_and_its_attribute() -> None:
    inner, tensor = Scaled("list"), torch.ones(1)
    assert holder_of(inner.scale[0], {"net": nn.Sequential(nn.ReLU(), inner)}) == ("net.1", "scale")
    assert holder_of(tensor, {"net": inner}) == ("", "")
