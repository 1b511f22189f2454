"""The rule ``own-backward``, on functions whose backward is right and on such that forget the incoming gradient."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import Function

from support.short_runs import Batch, findings, record

Slope = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Code(Function):
    """The sign of a number; ``slope(x, gradient)`` is what its backward returns."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, slope: Slope) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.slope = slope
        return x.sign()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.slope(ctx.saved_tensors[0], gradients[0]), None


class Coder(nn.Module):
    def __init__(self, slope: Slope) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return Code.apply(x, self.slope)  # type: ignore[no-untyped-call, no-any-return]


def data(number: int) -> Batch:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(16, 6, generator=generator), torch.randint(4, (16,), generator=generator)


def told(folder: Path, slope: Slope, *, named: bool) -> list[tuple[str, str]]:
    torch.manual_seed(0)
    model = nn.ModuleDict({"one": nn.Linear(6, 8), "two": nn.Linear(8, 4)} | ({"code": Coder(slope)} if named else {}))

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        code = model["code"] if named else Coder(slope).forward
        return F.cross_entropy(model["two"](code(model["one"](x))), y)

    trial = record(folder, model, loss_of, data, steps=6)
    return [(found.level, found.node) for found in findings(trial, "own-backward")]


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    "slope",
    [lambda x, g: (x.abs() < 1).float(), lambda x, g: torch.ones_like(g), lambda x, g: (g * (1 - x.tanh() ** 2)).abs()],
)
def test_a_backward_that_forgets_its_gradient_is_told(slope: Slope, named: bool, tmp_path: Path) -> None:
    assert told(tmp_path, slope, named=named) == [("error", "model.one")]


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    "slope", [lambda x, g: g * (x.abs() < 1), lambda x, g: -0.1 * g, lambda x, g: g.clamp(-1e-3, 1e-3)]
)
def test_one_that_is_linear_in_it_is_right(slope: Slope, named: bool, tmp_path: Path) -> None:
    assert told(tmp_path, slope, named=named) == []
