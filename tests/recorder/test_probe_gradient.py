"""The probe ``gradient``: whether a module's backward is the derivative of what it computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd import Function

from stepscope.recorder import Probed, probe


class Squared(Function):
    """A square whose backward forgets a factor of two, if it is to."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.factor = factor
        return x * x

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.factor * ctx.saved_tensors[0] * gradients[0], None


class Square(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return Squared.apply(x, self.factor)  # type: ignore[no-untyped-call, no-any-return]


class Cut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.one(x).detach())


def asked(model: nn.Module, *shape: int) -> Probed:
    torch.manual_seed(0)
    return probe(model, torch.randn(*shape), probes=["gradient"])[0]


def test_a_wrong_backward_is_found_in_its_module() -> None:
    result = asked(nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Tanh(), Square(1.0)), nn.Linear(4, 2)), 8, 4)
    assert (result.found, result.module) == (True, "1.1")
    assert result.value == pytest.approx(0.5, rel=1e-3)


def test_a_cut_is_found_in_the_module_whose_code_it_is() -> None:
    result = asked(nn.Sequential(Cut(), nn.Tanh()), 8, 4)
    assert (result.found, result.module) == (True, "0")


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Sequential(nn.Linear(4, 4), Square(2.0)), (8, 4)),
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Dropout(0.3), nn.BatchNorm1d(4)), (8, 4)),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.GroupNorm(2, 4), nn.GELU()), (4, 3, 8, 8)),
        (nn.LSTM(4, 4, batch_first=True), (4, 5, 4)),
        (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (4, 5, 8)),
    ],
)
def test_what_torch_derives_is_right(model: nn.Module, shape: tuple[int, ...]) -> None:
    assert not asked(model, *shape).found


def test_nothing_is_changed() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    before, random = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    probe(model, torch.zeros(8, 4), probes=["gradient"])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert model[0].weight.grad is None
    assert model[0].weight.dtype == torch.float32
