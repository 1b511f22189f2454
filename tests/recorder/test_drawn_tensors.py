"""Which attributes of a module look like weights that were never registered, and what is said of them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder.drawn_tensors import drawn_tensors, looks_drawn
from support.short_runs import blob_batches, findings, record


def waves(length: int, width: int) -> torch.Tensor:
    """The position encoding of Vaswani et al. (2017)."""
    place, column = torch.arange(length)[:, None], torch.arange(0, width, 2)
    angle = place * torch.exp(-column * math.log(10_000) / width)
    return torch.stack([angle.sin(), angle.cos()], 2).flatten(1)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("shape", [(4, 8), (12, 16), (3, 5, 7), (64, 64)])
def test_random_numbers_look_drawn(shape: tuple[int, ...], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    assert looks_drawn(0.02 * torch.randn(shape, generator=generator))
    assert looks_drawn(torch.rand(shape, generator=generator) - 0.5)


@pytest.mark.parametrize(
    "tensor",
    [
        waves(50, 16), torch.zeros(8, 8), torch.eye(8), torch.ones(8, 8).triu(), torch.rand(16, 16),
        torch.linspace(-1, 1, 64).view(8, 8), torch.randn(64), torch.randn(4, 4), torch.randint(9, (8, 8)),
        torch.randn(8, 8).cumsum(1), torch.randn(8, 8).round(), torch.full((8, 8), math.nan),
        torch.randn(8, 8, requires_grad=True), torch.randn(8, 8, device="meta"), torch.randn(64, 1).expand(64, 8),
    ],
)  # fmt: skip
def test_other_tables_do_not(tensor: torch.Tensor) -> None:
    assert not looks_drawn(tensor)


class Memory(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        keys = torch.randn(8, 8)
        self.encode = nn.Linear(8, 8)
        if kind == "buffer":
            self.register_buffer("keys", keys)
        else:
            self.keys = nn.Parameter(keys) if kind == "parameter" else keys
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head((self.encode(x) @ self.keys.T).softmax(1) @ self.keys)


@pytest.mark.parametrize(("kind", "found"), [("plain", ["info"]), ("parameter", []), ("buffer", [])])
def test_what_is_said_of_them(kind: str, found: list[str], tmp_path: Path) -> None:
    model = Memory(kind)
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, steps=5)
    told = findings(trial, "unregistered-parameters")
    assert [finding.level for finding in told] == found
    assert all("keys (8, 8)" in finding.summary for finding in told)


class Scaled(nn.Module):
    """A layer with a scale that was made of a parameter, or that keeps what it last gave."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.encode, self.kind = nn.Linear(8, 4), kind
        scale = torch.full((1, 4), 0.5)
        if kind == "squeezed":
            self.scale = nn.Parameter(scale).squeeze()
        elif kind == "shifted":
            self.scale = nn.Parameter(scale).squeeze() + 0.1
        elif kind == "of its own weight":
            self.scale = self.encode.weight.mean(1)
        else:
            self.scale = nn.Parameter(scale.squeeze())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.last = self.encode(x) * (self.scale.detach() if self.kind == "of its own weight" else self.scale)
        return self.last


@pytest.mark.parametrize(
    ("kind", "made"),
    [("squeezed", "squeeze"), ("shifted", "add"), ("of its own weight", ""), ("parameter", "")],
)
def test_what_is_made_of_a_parameter_is_none(kind: str, made: str, tmp_path: Path) -> None:
    model = Scaled(kind)
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, steps=5)
    told = [one for one in findings(trial, "unregistered-parameters") if "made of an nn.Parameter" in one.summary]
    assert [(one.level, f"scale (4,) by {made}" in one.summary) for one in told] == [("warning", True)] * bool(made)


def test_a_view_of_what_was_changed_since_is_left_alone() -> None:
    """Asked for its ``grad_fn``, torch raises: one of several views, whose base was changed in place."""
    module, flat = nn.Module(), nn.Parameter(torch.zeros(4))
    with torch.enable_grad():
        whole = flat * 1
        module.part, _ = whole.split(2)
        whole.add_(1)
    with pytest.raises(RuntimeError, match="multiple views"):
        _ = module.part.grad_fn
    assert list(drawn_tensors(module, set())) == []
